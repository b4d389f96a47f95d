//! Mutual TLS between workloads with SPIFFE identities.
//!
//! Guarantees:
//! - The peer of a connection that [`server::accept`] or [`client::connect`] returns has an X.509-SVID, whose chain leads to a root
//!   of *its own* trust domain's bundle, and has proven possession of the private key. The identity in [`PeerInfo`] is the one that
//!   was verified in this handshake.
//! - There is no session resumption, no early data, and no TLS without a client certificate, with any configuration. No secret
//!   of a connection leaves the process. Exceptions are [`ca_channel`], since a workload that requests its first certificate has
//!   none, and the world outside of the mesh, which knows no SPIFFE ID: [`originate`] calls a server there, which is always
//!   verified, and [`accept_one_way`] serves a client there, which gets no identity.
//! - Every instance of [`Credentials`] is usable: it was verified with the code that verifies peers.
//!
//! webpki builds paths, aws-lc verifies signatures, `portcullis-identity` checks what SPIFFE requires beyond that, and
//! `portcullis-record` processes records after the handshake. The crate does not know policies, files, deadlines or retries.

mod bundle;
pub mod ca_channel;
mod chain_cache;
pub mod client;
mod clock;
mod credential_error;
mod credential_files;
mod credentials;
mod digest;
mod extra_roots;
mod handshake;
mod negotiated;
mod one_way;
mod origination;
mod outside;
mod pem;
mod provider;
mod scratch;
pub mod server;
mod session;
mod signatures;
mod store;
mod stream;
mod trust;
mod unsent;
mod verifier;
mod verify;

pub use bundle::{BundleError, Root, TrustBundle};
pub use clock::{Clock, utc};
pub use credential_error::{CredentialError, CredentialWarning, FileRole};
pub use credential_files::{CredentialFiles, CredentialParts};
pub use credentials::{Credentials, IdentityRules, MinVersion, Svid};
pub use digest::{ContentDigest, bundle_digest, sha256};
pub use extra_roots::check_extra_roots;
pub use handshake::{HandshakeError, HandshakeFault, PeerInfo};
pub use negotiated::Negotiated;
pub use one_way::{CertificateFor, OneWayError, OneWayInfo, OneWayParts, OneWayServer, accept_one_way};
pub use origination::{OriginationError, OriginationParts, Originator, Roots, ServerInfo, SystemRoots, originate};
pub use outside::{KeyPairError, OutsideRefusal, RootsError};
pub use pem::{MAX_FILE_LEN, PemError, certificates, private_key};
pub use provider::provider;
pub use store::{CredentialReader, CredentialStore, Unavailable};
pub use stream::{Stream, StreamFault};
pub use trust::{TrustBundles, TrustError};
pub use verify::{MAX_CHAIN_CERTIFICATES, MAX_CHAIN_LEN, PathError, PathSummary, VerifyError};
