//! Sources of credentials other than files.
//!
//! What comes from them is judged by [`Credentials::validate_parts`](portcullis_tls::Credentials::validate_parts), as a peer
//! would judge it, before anything is in force; what is refused leaves the old ones there. When to ask is decided by a state
//! machine that is told the time, so that it can be proven without waiting; see [`schedule`].
//!
//! It refuses to know files and metrics: whoever starts a source passes in how files are read, and asks for its [`RenewalStatus`].

pub mod backoff;
pub mod ca;
mod channel;
mod error;
mod key;
pub mod log_throttle;
mod publish;
pub mod schedule;
mod status;
pub mod workload_api;

pub use error::{AnswerError, FetchError};
pub use publish::CredentialSink;
pub use status::{LastFailure, RenewalMonitor, RenewalStatus};
