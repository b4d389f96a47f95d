//! How a connection ends: the row type of the outcome table, and one ending made from a row.
//!
//! The table itself is `portcullis_proxy::outcome`. The two rows that this crate needs by itself are here, and the table
//! takes them from here.

/// Whether the connection was let through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It was forwarded.
    Allow,
    /// It was refused, or this proxy closed it while it was open.
    Deny,
}

impl Decision {
    /// The value of the field and label `decision`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Istio's response flag: why a connection ended early, in ztunnel's terms.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ResponseFlag {
    /// It ended as it should.
    None,
    /// Policy refused it, or closed it.
    Deny,
    /// The destination could not be reached.
    Connect,
    /// The handshake failed.
    TlsFailure,
    /// There was no usable identity of our own.
    IdentityError,
    /// The client went away by itself before anything was decided: not a failure, so it is not counted.
    Abandoned,
}

impl ResponseFlag {
    /// Those that are counted.
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Deny, Self::Connect, Self::TlsFailure, Self::IdentityError];

    /// The value of the label `response_flags`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::None | Self::Abandoned => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::IdentityError => "IDENTITY_ERROR",
        }
    }
}

/// How far a connection had come when it ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ConnStage {
    /// Accepting, and the limits on connections.
    Accept,
    /// Finding out where the connection goes.
    Routing,
    /// Reading the client's first bytes, and the decision of the policy.
    Detection,
    /// The TLS handshake.
    Handshake,
    /// The decision of AuthorizationPolicies.
    Authorization,
    /// Dialling the app or the destination.
    Connect,
    /// Copying bytes.
    Relay,
    /// Any of them.
    Any,
}

impl ConnStage {
    /// The name in the documentation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Routing => "routing",
            Self::Detection => "detection",
            Self::Handshake => "handshake",
            Self::Authorization => "authorization",
            Self::Connect => "connect",
            Self::Relay => "relay",
            Self::Any => "any",
        }
    }
}

/// One row of the outcome table: one reason why a connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The value of `reason` in logs and metrics. Stable: labels are added, never changed.
    pub label: &'static str,
    /// Where in its life the connection ends.
    pub stage: ConnStage,
    /// What was decided.
    pub decision: Decision,
    /// What Istio's TCP metrics show.
    pub flag: ResponseFlag,
    /// What an operator can do about it.
    pub hint: &'static str,
    /// What happened, for the documentation.
    pub doc: &'static str,
}

impl Outcome {
    /// A row with `decision="allow"`.
    #[must_use]
    pub const fn allow(label: &'static str, stage: ConnStage, flag: ResponseFlag, hint: &'static str) -> Self {
        Self { label, stage, decision: Decision::Allow, flag, hint, doc: "" }
    }

    /// A row with `decision="deny"`.
    #[must_use]
    pub const fn deny(label: &'static str, stage: ConnStage, flag: ResponseFlag, hint: &'static str) -> Self {
        Self { label, stage, decision: Decision::Deny, flag, hint, doc: "" }
    }

    /// The same row with its documentation.
    #[must_use]
    pub const fn with_doc(self, doc: &'static str) -> Self {
        Self { doc, ..self }
    }
}

/// A record was dropped by a panic of its task.
pub const PANIC: Outcome = Outcome::deny(
    "panic",
    ConnStage::Any,
    ResponseFlag::None,
    "a bug in this proxy ended this connection alone; please report it with the line that says panic",
);

/// The label of connections to a port of the proxy itself, which are health probes most of the time.
pub const LOOP: &str = "loop";

/// A record was dropped without an ending.
pub const SHUTDOWN: Outcome = Outcome::deny(
    "shutdown",
    ConnStage::Any,
    ResponseFlag::None,
    "the proxy ended, or a task was cancelled, while the connection was open",
);

/// How one connection ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Allowed or denied.
    pub decision: Decision,
    /// The label of the outcome; `-` for a clean end.
    pub reason: &'static str,
    /// What Istio's TCP metrics show.
    pub flag: ResponseFlag,
    /// What an operator can do about it; empty if there is nothing to do.
    pub hint: &'static str,
    /// Details of a failure, for the log only.
    pub error: Option<String>,
}

impl Ending {
    /// Both sides ended the connection cleanly.
    pub const CLEAN: Self =
        Self { decision: Decision::Allow, reason: "-", flag: ResponseFlag::None, hint: "", error: None };

    /// The ending that a row of the table describes, with details for the log.
    #[must_use]
    pub fn new(outcome: impl Into<&'static Outcome>, error: Option<String>) -> Self {
        let Outcome { label, decision, flag, hint, .. } = *outcome.into();
        Self { decision, reason: label, flag, hint, error }
    }
}
