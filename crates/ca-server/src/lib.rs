//! The certificate authority as a server.
//!
//! It serves Istio's `CreateCertificate`, and our `GetTrustBundles` and `Join`, over TLS 1.3 and HTTP/2. Guarantees:
//! - A certificate names only the identity that the caller proved, with a bootstrap token or with its current SVID; only the
//!   public key of a request is used.
//! - A single-use token yields one certificate, even across a crash: its use is on disk before the answer is sent.
//! - Another host gets tokens only for the identities that the operator has listed in its join token, of which the hash is kept.
//! - The reason for a refusal is in the log and in `audit.jsonl`, not in the answer.
//! - Every wait has a deadline, every queue a limit, and no source address or identity can exhaust them for the others.
//! - A CA, roots or registrations that cannot be used never replace those in force.
//!
//! The root's key is never read. IstioOperator documents in the folder add roots and lifetimes (`portcullis-istio`).

mod audit;
mod audit_file;
mod authenticate;
mod bootstrap;
mod ca_state;
mod connection;
mod control;
mod descriptors;
mod finish;
mod issue;
mod join;
mod join_tokens;
mod limits;
mod metrics;
mod mint;
mod old_root;
mod plain;
mod recovery;
mod reload;
mod report;
mod resources;
mod rotate;
mod rotation_status;
mod server;
mod service;
mod step;
mod tls;

pub use audit_file::audit_files;
pub use control::{CaStatus, Published, join_token, published, rotate, status_of};
pub use finish::finish_unused;
pub use join_tokens::{JoinTokenAnswer, JoinTokenRequest, JoinTokenStatus, MAX_JOIN_TTL_SECONDS, NewJoinToken};
pub use mint::{mint, trust_domain};
pub use old_root::{InstanceConnections, OldRootConnections};
pub use reload::{reads, replace_key_and_cert};
pub use rotation_status::{BlockerStatus, PhaseStart, RotationStatus};
pub use server::{CaServer, Config, Reload, StartError};
pub use step::{Request as RotateRequest, Step};
