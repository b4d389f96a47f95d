//! The issuing core: makes roots and intermediates, reads requests, signs workload SVIDs. No sockets, nothing asynchronous.
//!
//! Profiles are separate types with separate functions, so that a leaf can never come out as a CA: a [`Root`] makes an
//! [`Intermediate`], a [`Signer`] makes a [`Leaf`]. What a certificate names comes from the caller's registration alone; of
//! a request nothing survives but its public key ([`CertifiedPublicKey`]). A leaf never outlives its issuer.

mod csr;
mod error;
mod fields;
mod files;
mod hex;
mod intermediate;
mod issue;
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
pub use leaf::{Leaf, MIN_TTL, ServerName, pem};
pub use register::{RegisterError, Registered, register};
pub use registrations::{DefaultLifetimes, Limits, Registration, Registrations};
pub use root::Root;
pub use signer::{ServerCertificate, Signer, SignerError, SignerFiles, Validity};
pub use token::{Token, TokenError, TokenKey, TokenKeyError, TokenNumber};
