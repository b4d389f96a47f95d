//! What `migrate` says.

use std::collections::BTreeMap;

use portcullis_api::Timestamp;
use portcullis_policy::{MeshSettings, Mode, PolicySet};
use serde::Serialize;

use crate::readiness::Readiness;
use crate::status::Status;

/// What to plan from.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The policies of the folder.
    pub set: &'a PolicySet,
    /// Settings of the mesh.
    pub mesh: &'a MeshSettings,
    /// Who breaks, over all namespaces.
    pub readiness: &'a Readiness,
    /// When each file was last written, for those that are known: how long a policy without a timestamp has been in force.
    pub written: &'a BTreeMap<String, Timestamp>,
    /// The time.
    pub now: Timestamp,
    /// Only this namespace is suggested.
    pub namespace: Option<&'a str>,
    /// A namespace that is suggested although it is not ready.
    pub forced: Option<&'a Forced>,
    /// How the reader's next commands find the same sidecars and the same folder.
    pub flags: Flags<'a>,
}

/// What was given on the command line, each flag with a space before it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flags<'a> {
    /// Of the policy folder: ` --policies policies`.
    pub folder: &'a str,
    /// Of what is asked: ` --window 14d`.
    pub observed: &'a str,
    /// Of where sidecars are: ` --docker`.
    pub proxies: &'a str,
}

/// A namespace that is to be switched whatever readiness says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forced {
    /// The namespace.
    pub namespace: String,
    /// Why; it becomes an annotation.
    pub reason: String,
}

/// Where a namespace, or the mesh as a whole, is on its way.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Standing {
    /// It is STRICT.
    Done,
    /// STRICT would refuse nobody who was seen.
    Ready,
    /// DISABLE, where nobody looks at what clients speak: PERMISSIVE comes first.
    Disabled,
    /// Too little is known.
    Unknown,
    /// A sidecar did not answer.
    Unreachable,
    /// STRICT would refuse clients.
    Blocked,
}

impl Standing {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "DONE",
            Self::Ready => "READY",
            Self::Disabled => "DISABLED",
            Self::Unknown => "UNKNOWN",
            Self::Unreachable => "UNREACHABLE",
            Self::Blocked => "BLOCKED",
        }
    }

    /// What it comes to, as in `readiness`.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Done | Self::Ready | Self::Disabled => Status::Ready,
            Self::Unknown => Status::TooLittle,
            Self::Unreachable => Status::Unreachable,
            Self::Blocked => Status::NotReady,
        }
    }
}

/// A client that keeps a namespace from STRICT.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// How the client is called, with its address.
    pub client: String,
    /// The workload that it calls.
    pub workload: String,
    /// The port.
    pub port: u16,
    /// When it was last let through.
    pub last_seen: Timestamp,
}

/// One namespace.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// Its name.
    pub namespace: String,
    /// The mode of its workloads, unless a policy of a workload says otherwise.
    pub mode: Mode,
    /// The policy that decides it, and where it is written; none for the default.
    pub decided_by: Option<String>,
    /// For how long it has had that policy, as far as that is known.
    pub mode_seconds: Option<u64>,
    /// Where it is.
    pub standing: Standing,
    /// Ports with clients.
    pub ports: usize,
    /// Connections in the window at its ports.
    pub connections: u64,
    /// Clients that STRICT would refuse.
    pub blockers: Vec<Blocker>,
    /// Why too little is known.
    pub unknown: Vec<String>,
    /// Ports of workloads that a policy of their own keeps below STRICT, documented: `cart:9090 PERMISSIVE (shop/cart-metrics; shop-team,
    /// until 2099-01-01 (20d left))`. The switch does not change them.
    pub exceptions: Vec<String>,
    /// The same where owner, reason or end are missing, or the end has passed: the migration is not done with them.
    pub undocumented: Vec<String>,
    /// The worst of what `readiness` says about the undocumented ones.
    #[serde(skip)]
    pub undocumented_status: Option<Status>,
}

/// What to apply next.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Suggestion {
    /// The namespace of the policy.
    pub namespace: String,
    /// Its name: that of the policy that holds there already, else `default`.
    pub name: String,
    /// Its mode.
    pub mode: Mode,
    /// Why it is forced, if it is.
    pub forced: Option<String>,
}

impl Suggestion {
    /// The document.
    #[must_use]
    pub fn yaml(&self) -> String {
        let Self { namespace, name, mode, forced } = self;
        // JSON's strings are YAML's.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let annotations = forced.as_ref().map_or_else(String::new, |reason| {
            format!(
                "  annotations:\n    portcullis/forced: \"true\"\n    portcullis/reason: {}\n",
                quoted(&crate::text::clean_long(reason))
            )
        });
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {name}\n  namespace: {namespace}\n{annotations}\
             spec:\n  mtls:\n    mode: {mode}\n"
        )
    }

    /// The name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.peerauthentication.{}.yaml", self.namespace, self.name)
    }
}
