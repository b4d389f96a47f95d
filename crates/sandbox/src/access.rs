//! Which files and ports are left: Landlock.
//!
//! Files and ports are two rulesets, put in force one after the other and each looked at: where both were one, a right that
//! one kernel does not know has made rules vanish in silence. Best effort: a kernel that knows less enforces less, and
//! what it does enforce is told.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus,
};

/// The newest rights over files that are asked for. A newer one is to be tried before it is named here.
const FILES: ABI = ABI::V5;

/// What is left to this thread, and to those that it starts from now on.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Files and folders that may be read, with all that is or comes below them. Nothing may be executed. One that does not
    /// exist is left out.
    pub read: BTreeSet<PathBuf>,
    /// Folders below which files and folders may be written, made, renamed and removed as well, and Unix sockets bound.
    pub write: BTreeSet<PathBuf>,
    /// TCP ports that may be bound; 0 is any that the system chooses.
    pub bind: BTreeSet<u16>,
    /// TCP ports that may be dialled; `None` leaves that open.
    pub connect: Option<BTreeSet<u16>>,
}

/// How far one of the two is in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// All that was asked for.
    Whole,
    /// As far as this kernel knows it.
    Partly,
    /// Nothing, and why.
    Nothing(String),
}

/// What has become of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Version of the kernel's interface.
    abi: Option<i32>,
    /// Reading, writing, executing.
    pub files: Step,
    /// Binding and dialling.
    pub ports: Step,
}

impl Outcome {
    /// Whether all that was asked for is in force.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.files == Step::Whole && self.ports == Step::Whole
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("restricted"),
            Self::Partly => f.write_str("restricted in part"),
            Self::Nothing(why) => write!(f, "NOT restricted ({why})"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files {}, ports {}", self.files, self.ports)?;
        self.abi.map_or(Ok(()), |abi| write!(f, ", Landlock ABI {abi}"))
    }
}

/// Restricts this thread and those that it starts from now on; not those that run already.
pub fn restrict(access: &Access) -> Outcome {
    let mut abi = None;
    let files = step(files(access), "1", &mut abi);
    let ports = step(ports(access), "4", &mut abi);
    Outcome { abi, files, ports }
}

fn step(done: Result<RestrictionStatus, RulesetError>, needed: &str, abi: &mut Option<i32>) -> Step {
    let status = match done {
        Ok(status) => status,
        Err(error) => return Step::Nothing(error.to_string()),
    };
    if let LandlockStatus::Available { effective_abi, kernel_abi } = status.landlock {
        *abi = Some(kernel_abi.unwrap_or(effective_abi as i32));
    }
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => Step::Whole,
        (RulesetStatus::PartiallyEnforced, _) => Step::Partly,
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Step::Nothing("Landlock is not enabled".to_owned()),
        (RulesetStatus::NotEnforced, LandlockStatus::NotImplemented) => {
            Step::Nothing("this kernel has no Landlock".to_owned())
        }
        (RulesetStatus::NotEnforced, LandlockStatus::Available { .. }) => {
            Step::Nothing(format!("needs Landlock ABI {needed}"))
        }
    }
}

fn files(access: &Access) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = best_effort().handle_access(AccessFs::from_all(FILES))?.create()?;
    for path in &access.read {
        let Ok(place) = PathFd::new(path) else { continue };
        // A right that only folders have would make the rule of a file one that is enforced in part.
        let rights = if path.is_dir() { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() };
        ruleset = ruleset.add_rule(PathBeneath::new(place, rights))?;
    }
    for path in access.write.iter().filter(|path| path.is_dir()) {
        let Ok(place) = PathFd::new(path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(place, writing()))?;
    }
    ruleset.restrict_self()
}

/// Neither executing, nor devices, pipes and links.
fn writing() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
}

fn ports(access: &Access) -> Result<RestrictionStatus, RulesetError> {
    let ruleset = best_effort().handle_access(AccessNet::BindTcp)?;
    let ruleset = match access.connect {
        Some(_) => ruleset.handle_access(AccessNet::ConnectTcp)?,
        None => ruleset,
    };
    let allow = |may: AccessNet| move |ruleset: RulesetCreated, port: &u16| ruleset.add_rule(NetPort::new(*port, may));
    let ruleset = access.bind.iter().try_fold(ruleset.create()?, allow(AccessNet::BindTcp))?;
    access.connect.iter().flatten().try_fold(ruleset, allow(AccessNet::ConnectTcp))?.restrict_self()
}

fn best_effort() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::BestEffort)
}
