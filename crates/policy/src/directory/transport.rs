//! How an endpoint is reached: plaintext, mTLS of the mesh, or TLS of a server outside, and why.

use std::fmt;
use std::sync::Arc;

use portcullis_identity::ExpectedIds;

use crate::decided::Decided;
use crate::directory::resource::RuleRef;

/// How an endpoint is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Bytes as they are.
    Plaintext(PlaintextReason),
    /// mTLS of the mesh.
    Mtls {
        /// Who may answer. Without any the connection must be refused: Istio would then take any identity.
        identities: Result<ExpectedIds, NoIdentities>,
        /// The server name that is sent.
        sni: Arc<str>,
        /// Why.
        by: MtlsReason,
    },
    /// TLS that the proxy begins for the app, with a server outside of the mesh.
    Originate(Arc<TlsOrigination>),
}

/// Why an endpoint gets plaintext.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlaintextReason {
    /// The workload has no sidecar, or none is known.
    NoSidecar,
    /// The PeerAuthentications of the workload set DISABLE for this port.
    ModeDisable {
        /// What decided.
        policy: Arc<Decided>,
    },
    /// A DestinationRule sets DISABLE.
    RuleDisable {
        /// The rule.
        rule: RuleRef,
    },
    /// The service is outside of the mesh, and no DestinationRule has `tls`.
    External,
}

/// Why an endpoint gets mTLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MtlsReason {
    /// It has a sidecar, and its mode is not DISABLE.
    Auto {
        /// What decided the mode.
        policy: Arc<Decided>,
    },
    /// A DestinationRule sets ISTIO_MUTUAL.
    Rule {
        /// The rule.
        rule: RuleRef,
    },
}

/// Why no identity is accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoIdentities {
    /// The endpoint has no service account, and the ServiceEntry no SPIFFE ID among its subjectAltNames.
    Undeclared,
    /// The subjectAltNames of the DestinationRule replace all, and none of them is a SPIFFE ID.
    NotSpiffe {
        /// The rule.
        rule: RuleRef,
    },
}

/// What TLS origination needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsOrigination {
    /// With or without a client certificate.
    pub mode: OriginationMode,
    /// The file with the CA certificates; without it the roots of the system.
    pub ca: Option<Arc<str>>,
    /// Names, one of which the server's certificate must have; empty: it must have `sni`.
    pub subject_alt_names: Vec<String>,
    /// The server name that is sent, and verified where `subject_alt_names` is empty. `None` for a wildcard host without an
    /// `sni` in the rule: then it is the host that was asked for, and a connection whose host is unknown is to be refused unless
    /// there are `subject_alt_names`.
    pub sni: Option<Arc<str>>,
    /// The rule.
    pub rule: RuleRef,
}

/// SIMPLE or MUTUAL.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum OriginationMode {
    /// Without a client certificate.
    Simple,
    /// With a client certificate.
    Mutual {
        /// The file with the certificate chain.
        certificate: Arc<str>,
        /// The file with its key.
        key: Arc<str>,
    },
}

impl TlsOrigination {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Arc<str>> {
        let own = match &self.mode {
            OriginationMode::Simple => [None, None],
            OriginationMode::Mutual { certificate, key } => [Some(certificate), Some(key)],
        };
        own.into_iter().chain([self.ca.as_ref()]).flatten()
    }
}

impl Transport {
    /// `plaintext`, `mtls` or `tls`.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Plaintext(_) => "plaintext",
            Self::Mtls { .. } => "mtls",
            Self::Originate(_) => "tls",
        }
    }

    /// Why, as a stable word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Plaintext(reason) => reason.label(),
            Self::Mtls { by, .. } => by.label(),
            Self::Originate(origination) => match origination.mode {
                OriginationMode::Simple => "rule_simple",
                OriginationMode::Mutual { .. } => "rule_mutual",
            },
        }
    }

    /// Why, as a sentence.
    #[must_use]
    pub fn why(&self) -> String {
        match self {
            Self::Plaintext(reason) => reason.to_string(),
            Self::Mtls { identities: Ok(_), by, .. } => by.to_string(),
            Self::Mtls { identities: Err(none), by, .. } => format!("{by}, but {none}"),
            Self::Originate(origination) => {
                let mode = match origination.mode {
                    OriginationMode::Simple => "SIMPLE",
                    OriginationMode::Mutual { .. } => "MUTUAL",
                };
                format!("{} sets {mode}", origination.rule)
            }
        }
    }

    /// What is secured: anything but plaintext.
    #[must_use]
    pub const fn is_secured(&self) -> bool {
        !matches!(self, Self::Plaintext(_))
    }

    /// Where what decided is written.
    #[must_use]
    pub fn location(&self) -> Option<(&str, u32)> {
        match self {
            Self::Plaintext(PlaintextReason::NoSidecar | PlaintextReason::External) => None,
            Self::Plaintext(PlaintextReason::ModeDisable { policy })
            | Self::Mtls { by: MtlsReason::Auto { policy }, .. } => Some((policy.by.file.as_deref()?, policy.by.line?)),
            Self::Plaintext(PlaintextReason::RuleDisable { rule })
            | Self::Mtls { by: MtlsReason::Rule { rule }, .. } => Some((&rule.file, rule.line)),
            Self::Originate(origination) => Some((&origination.rule.file, origination.rule.line)),
        }
    }
}

impl PlaintextReason {
    /// A stable word.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoSidecar => "no_sidecar",
            Self::ModeDisable { .. } => "mode_disable",
            Self::RuleDisable { .. } => "rule_disable",
            Self::External => "external",
        }
    }
}

impl MtlsReason {
    /// A stable word.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Auto { .. } => "auto",
            Self::Rule { .. } => "rule_istio_mutual",
        }
    }
}

impl NoIdentities {
    /// A stable word.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Undeclared => "undeclared",
            Self::NotSpiffe { .. } => "not_spiffe",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.why();
        match self {
            Self::Plaintext(_) => write!(f, "plaintext: {why}"),
            Self::Mtls { identities: Ok(ids), .. } => write!(f, "mTLS with {ids}: {why}"),
            Self::Mtls { identities: Err(_), .. } => write!(f, "mTLS with nobody: {why}"),
            Self::Originate(_) => write!(f, "TLS: {why}"),
        }
    }
}

impl fmt::Display for PlaintextReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSidecar => f.write_str("no sidecar is declared for the endpoint"),
            Self::ModeDisable { policy } => write!(f, "{} sets {} for its port", Policy(policy), policy.mode),
            Self::RuleDisable { rule } => write!(f, "{rule} sets DISABLE"),
            Self::External => f.write_str("the service is outside of the mesh"),
        }
    }
}

impl fmt::Display for MtlsReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto { policy } => {
                write!(f, "the endpoint has a sidecar, and {} sets {} for its port", Policy(policy), policy.mode)
            }
            Self::Rule { rule } => write!(f, "{rule} sets ISTIO_MUTUAL"),
        }
    }
}

impl fmt::Display for NoIdentities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undeclared => f.write_str(
                "it has no serviceAccount, and its ServiceEntry no SPIFFE ID in subjectAltNames, so no identity is \
                 accepted",
            ),
            Self::NotSpiffe { rule } => {
                write!(f, "subjectAltNames of {rule} hold no SPIFFE ID, so no identity is accepted")
            }
        }
    }
}

/// A PeerAuthentication, or the default, in a sentence.
struct Policy<'d>(&'d Decided);

impl fmt::Display for Policy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.by.file, self.0.by.line) {
            (Some(file), Some(line)) => write!(f, "PeerAuthentication {} ({file}:{line})", self.0.label),
            _ => f.write_str("the default of the mesh"),
        }
    }
}
