//! Sources of credentials other than files.
//!
//! [`Credentials::validate_parts`](portcullis_tls::Credentials::validate_parts) validates them as a peer would before they are
//! put in force; if it refuses them, the old ones stay. A state machine with the time as an argument decides when to request
//! them, so tests need not wait; see [`schedule`].
//!
//! [`join`] is for a host that has nothing yet: it verifies the authority by the hash of its root before it sends anything.
//!
//! It knows neither files nor metrics: the caller passes in functions that read files, and queries the [`RenewalStatus`].

pub mod backoff;
pub mod ca;
mod channel;
mod error;
pub mod join;
mod key;
pub mod log_throttle;
mod publish;
pub mod schedule;
mod status;
pub mod workload_api;

pub use error::{AnswerError, FetchError};
pub use publish::CredentialSink;
pub use status::{LastFailure, RenewalMonitor, RenewalStatus};
