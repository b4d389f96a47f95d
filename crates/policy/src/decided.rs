//! A mode, and the policy that decided it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::break_glass::BreakGlass;
use crate::documentation::Documentation;
use crate::mode::Mode;
use crate::resource::PeerAuthentication;

/// Where a mode comes from.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// `mesh.defaultMode`.
    Default,
    /// Root namespace, no selector.
    Mesh,
    /// The workload's namespace, no selector.
    Namespace,
    /// A selector that matches.
    Workload,
    /// `portLevelMtls` of the workload policy.
    Port,
    /// A break-glass document, over one of the others.
    #[serde(rename = "break-glass")]
    BreakGlass,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::Mesh => "mesh",
            Self::Namespace => "namespace",
            Self::Workload => "workload",
            Self::Port => "port",
            Self::BreakGlass => "break-glass",
        })
    }
}

/// The policy that decided.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DecidedBy {
    /// Its scope.
    pub scope: Scope,
    /// Its namespace; none for the default.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The file that it was read from.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<u32>,
    /// Break-glass: when it ends, in Unix time.
    #[serde(skip)]
    pub until: Option<i64>,
    /// What its annotations say about it; none if there are none.
    #[serde(skip)]
    pub documentation: Option<Arc<Documentation>>,
}

impl DecidedBy {
    pub(crate) fn new(scope: Scope, policy: &PeerAuthentication) -> Self {
        Self {
            scope,
            namespace: Some(policy.namespace.clone()),
            name: Some(policy.name.clone()),
            file: Some(policy.file.clone()),
            line: Some(policy.line),
            until: None,
            documentation: (policy.documentation != Documentation::default())
                .then(|| Arc::new(policy.documentation.clone())),
        }
    }

    pub(crate) fn break_glass(it: &BreakGlass) -> Self {
        Self { until: Some(it.until), ..Self::new(Scope::BreakGlass, &it.policy) }
    }

    pub(crate) const fn default_mode() -> Self {
        Self {
            scope: Scope::Default,
            namespace: None,
            name: None,
            file: None,
            line: None,
            until: None,
            documentation: None,
        }
    }

    /// `namespace/name`, or `default`: for logs and metrics.
    #[must_use]
    pub fn label(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => "default".to_owned(),
        }
    }
}

/// A mode, and the policy that decided it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decided {
    /// The mode.
    pub mode: Mode,
    /// The policy.
    pub by: DecidedBy,
    /// [`DecidedBy::label`], made once: every connection carries it.
    pub label: Arc<str>,
}

impl Decided {
    pub(crate) fn new(mode: Mode, by: DecidedBy) -> Self {
        let label = Arc::from(by.label());
        Self { mode, by, label }
    }
}
