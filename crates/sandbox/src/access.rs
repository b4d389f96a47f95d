//! Access to files and ports: Landlock.
//!
//! Files and ports are two rulesets, enforced one after the other, each with its own result: in a common ruleset, a right
//! that the kernel does not support once dropped rules silently. Best effort: an older kernel enforces less, and the
//! outcome reports what it enforces.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus,
};

/// The newest version of file rights that is requested. Test a newer one before it is named here.
const FILES: ABI = ABI::V5;

/// What this thread, and threads that it starts from now on, may still access.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Files and folders that may be read, with all that is or comes below them. Nothing may be executed. One that does not
    /// exist is left out.
    pub read: BTreeSet<PathBuf>,
    /// Folders below which files and folders may be written, made, renamed and removed as well, and Unix sockets bound.
    pub write: BTreeSet<PathBuf>,
    /// Folders in which files may be removed, and nothing else.
    pub remove: BTreeSet<PathBuf>,
    /// TCP ports that may be bound; 0 is any that the system chooses.
    pub bind: BTreeSet<u16>,
    /// TCP ports that may be dialled; `None` leaves that open.
    pub connect: Option<BTreeSet<u16>>,
}

/// How far one ruleset is enforced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Fully.
    Whole,
    /// As far as this kernel supports it.
    Partly,
    /// Not at all, and why.
    Nothing(String),
}

/// The outcome of a restriction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Version of the kernel's Landlock interface.
    abi: Option<i32>,
    /// Reading, writing, executing.
    pub files: Step,
    /// Binding and dialling.
    pub ports: Step,
}

impl Outcome {
    /// Whether everything that was requested is enforced.
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

/// Restricts this thread and threads that it starts from now on, but none that run already.
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
        // With a right that only folders have, the rule of a file would be enforced only in part.
        let rights = if path.is_dir() { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() };
        ruleset = ruleset.add_rule(PathBeneath::new(place, rights))?;
    }
    for path in access.write.iter().filter(|path| path.is_dir()) {
        let Ok(place) = PathFd::new(path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(place, writing()))?;
    }
    for path in access.remove.iter().filter(|path| path.is_dir()) {
        let Ok(place) = PathFd::new(path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(place, AccessFs::RemoveFile))?;
    }
    ruleset.restrict_self()
}

/// Everything but executing, devices, pipes and links.
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
