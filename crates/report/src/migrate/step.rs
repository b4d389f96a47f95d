//! The step that a mesh is in.

use portcullis_api::Timestamp;
use portcullis_policy::Mode;
use serde::Serialize;

use crate::input::Unanswered;
use crate::migrate::build;
use crate::migrate::model::{Flags, Namespace, Options, Standing, Suggestion};
use crate::status::Status;

/// A step of the way, as Istio's guide counts them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// 1: the mesh is not PERMISSIVE yet.
    PermissiveMesh,
    /// 2: it is; no namespace is ready for STRICT, and none has it.
    Monitor,
    /// 3: a namespace can be switched.
    StrictNamespaces,
    /// 4: some are STRICT, and no other is ready.
    MonitorNamespaces,
    /// 5: every namespace is STRICT; the mesh follows.
    StrictMesh,
    /// 5: the mesh is STRICT, but policies of workloads keep ports open without an owner, a reason and an end that has not come.
    UndocumentedExceptions,
    /// All of it is STRICT, but for documented exceptions.
    Done,
}

impl Step {
    /// Its number; the last one stays 5 when it is done.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::PermissiveMesh => 1,
            Self::Monitor => 2,
            Self::StrictNamespaces => 3,
            Self::MonitorNamespaces => 4,
            Self::StrictMesh | Self::UndocumentedExceptions | Self::Done => 5,
        }
    }

    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PermissiveMesh => "PERMISSIVE mode for the mesh",
            Self::Monitor => "watch who calls without mTLS",
            Self::StrictNamespaces => "STRICT for one namespace after another",
            Self::MonitorNamespaces => "watch who keeps the next namespace from STRICT",
            Self::StrictMesh => "STRICT for the mesh",
            Self::UndocumentedExceptions => "STRICT, but for exceptions that are not documented",
            Self::Done => "done: STRICT everywhere",
        }
    }
}

/// How far a mesh is on its way to STRICT.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// The step.
    pub step: Step,
    /// What it comes to: whether something can be done now.
    pub status: Status,
    /// The moment up to which was observed.
    pub as_of: Timestamp,
    /// The root namespace, whose policy holds for the mesh.
    pub root_namespace: String,
    /// The mode of the mesh.
    pub mesh_mode: Mode,
    /// The policy that decides it; none for the default.
    pub mesh_decided_by: Option<String>,
    /// For how long it has held, as far as that is known.
    pub mesh_mode_seconds: Option<u64>,
    /// The namespaces in the order in which they should be switched: those that are ready first.
    pub namespaces: Vec<Namespace>,
    /// What to apply next.
    pub next: Option<Suggestion>,
    /// Policies of namespaces that say the same as the mesh: `shop/default`.
    pub redundant: Vec<String>,
    /// Sidecars that did not answer.
    pub unanswered: Vec<Unanswered>,
    /// The command that prints and applies what comes next, with the flags of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The flags of the policy folder.
    #[serde(skip)]
    pub(super) folder: String,
}

impl Migration {
    /// Finds the step.
    #[must_use]
    pub fn new(options: &Options<'_>) -> Self {
        let readiness = options.readiness;
        let mut namespaces = build::namespaces(options);
        let confidence = |name: &str| build::confidence(readiness, name);
        namespaces.sort_by_key(|it| {
            (it.standing, std::cmp::Reverse(confidence(&it.namespace)), it.connections, it.namespace.clone())
        });
        let mesh = build::mesh(options);
        let (next, step) = next(options, mesh.mode, &namespaces);
        let status = match step {
            _ if next.is_some() => Status::Ready,
            Step::Done => Status::Ready,
            // As `readiness` says of the same ports.
            Step::UndocumentedExceptions => {
                namespaces.iter().filter_map(|it| it.undocumented_status).max().unwrap_or(Status::Ready)
            }
            _ => worst(&namespaces, options),
        };
        Self {
            step,
            status,
            as_of: readiness.as_of,
            root_namespace: options.mesh.root_namespace.clone(),
            redundant: if mesh.mode == Mode::Strict { build::redundant(options) } else { Vec::new() },
            mesh_mode: mesh.mode,
            mesh_decided_by: mesh.decided_by,
            mesh_mode_seconds: mesh.seconds,
            namespaces,
            unanswered: readiness.unanswered.clone(),
            command: next.as_ref().map(|next| command(options, next)),
            folder: options.flags.folder.to_owned(),
            next,
        }
    }
}

/// The two commands that go on from here. Nothing to be forced is printed: that takes a person and a reason.
fn command(options: &Options<'_>, next: &Suggestion) -> String {
    let Flags { folder, observed, proxies } = options.flags;
    let wanted = match next.forced {
        Some(_) => format!(" --force-namespace {} --reason ...", next.namespace),
        None => String::new(),
    };
    format!(
        "portcullis migrate next{wanted}{folder}{observed}{proxies} | portcullis apply -f -{folder} --guard 10m{proxies}"
    )
}

/// What to apply, and the step that this is part of.
fn next(options: &Options<'_>, mesh: Mode, namespaces: &[Namespace]) -> (Option<Suggestion>, Step) {
    // The policy of the root namespace is the mesh's: its own workloads are switched with the last step.
    let root = &options.mesh.root_namespace;
    let open = || namespaces.iter().filter(|it| it.standing != Standing::Done && it.namespace != *root);
    let has_strict = namespaces.iter().any(|it| it.standing == Standing::Done);
    let of = |namespace: &str, mode| build::suggestion(options, namespace, mode);
    if let Some(forced) = options.forced
        && namespaces.iter().any(|it| it.namespace == forced.namespace && it.standing != Standing::Done)
    {
        let suggestion = of(&forced.namespace, Mode::Strict);
        return (Some(Suggestion { forced: Some(forced.reason.clone()), ..suggestion }), Step::StrictNamespaces);
    }
    if mesh == Mode::Disable {
        // It cuts nobody off: whoever is let through by DISABLE is let through by PERMISSIVE.
        return (Some(of(root, Mode::Permissive)), Step::PermissiveMesh);
    }
    if namespaces.is_empty() && mesh != Mode::Strict {
        return (None, Step::Monitor);
    }
    let is_wanted = |it: &&Namespace| options.namespace.is_none_or(|wanted| wanted == it.namespace);
    // The order is that of the plan.
    for it in open().filter(is_wanted) {
        match it.standing {
            Standing::Ready => return (Some(of(&it.namespace, Mode::Strict)), Step::StrictNamespaces),
            Standing::Disabled => return (Some(of(&it.namespace, Mode::Permissive)), Step::StrictNamespaces),
            Standing::Done | Standing::Unknown | Standing::Unreachable | Standing::Blocked => {}
        }
    }
    match (open().next().is_some(), mesh) {
        (true, _) if has_strict => (None, Step::MonitorNamespaces),
        (true, _) => (None, Step::Monitor),
        (false, Mode::Strict) if namespaces.iter().any(|it| !it.undocumented.is_empty()) => {
            (None, Step::UndocumentedExceptions)
        }
        (false, Mode::Strict) => (None, Step::Done),
        // A sidecar that does not answer may be in a namespace that nobody else is in.
        (false, _) if !options.readiness.unanswered.is_empty() => (None, Step::StrictMesh),
        (false, _) if namespaces.iter().any(|it| it.standing > Standing::Disabled) => (None, Step::StrictMesh),
        (false, _) => (Some(of(root, Mode::Strict)), Step::StrictMesh),
    }
}

/// Why there is nothing to apply.
fn worst(namespaces: &[Namespace], options: &Options<'_>) -> Status {
    let silent = (!options.readiness.unanswered.is_empty()).then_some(Status::Unreachable);
    let is_wanted = |it: &&Namespace| options.namespace.is_none_or(|wanted| wanted == it.namespace);
    let found = namespaces.iter().filter(is_wanted).map(|it| it.standing.status());
    found.chain(silent).max().unwrap_or(Status::TooLittle)
}
