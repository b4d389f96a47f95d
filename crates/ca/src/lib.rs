//! The issuing core: generates roots and intermediates, reads requests, signs workload SVIDs. Synchronous, without sockets.
//!
//! Profiles are separate types with separate functions, so that a leaf can never come out as a CA: a [`Root`] makes an
//! [`Intermediate`], a [`Signer`] makes a [`Leaf`]. The names in a certificate come only from the caller's registration; of
//! a request only the public key is used ([`CertifiedPublicKey`]). A leaf never outlives its issuer.

mod csr;
mod error;
mod fields;
mod files;
mod hex;
mod intermediate;
mod issue;
mod join;
mod key;
mod leaf;
mod register;
mod registrations;
mod root;
pub mod rotation;
mod signer;
pub mod state;
mod token;

pub use csr::{CertifiedPublicKey, CsrError, KeyHash, MAX_CSR_LEN};
pub use error::CaError;
pub use files::{Private, WriteError, write};
pub use intermediate::Intermediate;
pub use issue::Issued;
pub use join::{JoinNumber, JoinToken, JoinTokenError, SecretHash};
pub use leaf::{Leaf, MIN_TTL, ServerName, pem};
pub use register::{RegisterError, Registered, register};
pub use registrations::{DefaultLifetimes, Limits, Registration, Registrations};
pub use root::Root;
pub use signer::{ServerCertificate, Signer, SignerError, SignerFiles, Validity};
pub use token::{Token, TokenError, TokenKey, TokenKeyError, TokenNumber};
