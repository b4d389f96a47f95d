//! Mutual TLS between workloads, with identities as SPIFFE has them.
//!
//! What this crate guarantees to its callers:
//! - A connection that [`server::accept`] or [`client::connect`] hands out has a peer whose chain led to a root of *its own*
//!   trust domain's bundle, whose certificate is an X.509-SVID, and who has proven to hold the key. The identity in
//!   [`PeerInfo`] is the one that was verified in this very handshake, read once.
//! - There is no session to resume, no early data, and no TLS without a client certificate, under any setting. No secret of a
//!   connection leaves its memory. The one exception stands apart, in [`authority`]: a workload that asks for its first
//!   certificate has none.
//! - [`Credentials`] that exist are usable: they were verified with the same code that peers are verified with.
//!
//! Path building and signatures are webpki's and aws-lc's; what SPIFFE asks beyond that is `portcullis-identity`'s. It
//! refuses to know policy, files, deadlines and retries: those are the callers' business.

pub mod authority;
mod bundle;
pub mod client;
mod clock;
mod credential_error;
mod credentials;
mod digest;
mod handshake;
mod pem;
mod proven;
mod provider;
mod scratch;
pub mod server;
mod session;
mod signatures;
mod store;
mod stream;
mod trust;
mod verifier;
mod verify;

pub use bundle::{BundleError, Root, TrustBundle};
pub use clock::{Clock, utc};
pub use credential_error::{CredentialError, CredentialWarning, FileRole};
pub use credentials::{CredentialFiles, CredentialParts, Credentials, IdentityRules, MinVersion, Svid};
pub use digest::bundle_digest;
pub use handshake::{HandshakeError, HandshakeFault, PeerInfo};
pub use pem::{MAX_FILE_LEN, PemError, certificates, private_key};
pub use provider::provider;
pub use store::{CredentialReader, CredentialStore, Unavailable};
pub use stream::{Stream, StreamFault};
pub use trust::{TrustBundles, TrustError};
pub use verify::{MAX_CHAIN_CERTIFICATES, MAX_CHAIN_LEN, PathError, PathSummary, VerifyError};
