//! Development only: certificates with every fault, and small applications to test against.
//!
//! No shipped crate may depend on this crate. It panics where product code would return an error, since a test whose setup
//! fails has failed; so the lints against panics are off here.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

pub mod apps;
pub mod certs;
mod certs_der;
mod certs_key;
mod certs_peer;
mod grpc;
pub mod istio_ca;
pub mod wait;
pub mod workload_api;

pub use certs_key::{Key, KeyKind, openssl, openssl_path};
pub use certs_peer::RawPeer;
