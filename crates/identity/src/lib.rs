//! SPIFFE IDs, trust domains, and what a certificate must be to carry one.
//!
//! This crate answers two questions and does nothing else: "is this text a SPIFFE ID, byte for byte?" and "may a
//! certificate with these bytes stand for a workload (or sign for one)?". It is pure: no clock, no file, no lock, no log.
//! Chains, signatures and validity periods are checked by `portcullis-tls`.
//!
//! It guarantees that a [`SpiffeId`] or [`TrustDomain`] that exists is a valid one, and that a [`leaf::Leaf`] has exactly
//! one identity. It refuses to repair: nothing is trimmed, decoded, lower-cased or skipped. Names of servers, which are no
//! identities, follow the rules of DNS: [`HostPattern`].

mod details;
mod domain;
mod expected;
mod host_pattern;
mod id;
mod id_error;
mod key_type;
pub mod leaf;
pub mod signer;
mod summary;
mod svid;
mod x509;

pub use details::{Constraints, Details, Usages, details};
pub use domain::{TrustDomain, TrustedDomains, TrustedDomainsError};
pub use expected::{ExpectedIds, ExpectedIdsError};
pub use host_pattern::{HostPattern, HostPatternError};
pub use id::{IstioId, SpiffeId};
pub use id_error::{IdError, MAX_ID_LEN, SCHEME};
pub use key_type::{ACCEPTED_KEYS, ISSUED_KEYS, KeyType};
pub use summary::{Summary, summary};
pub use svid::{KeyError, SvidError, UsageError};
