//! The issuing core: makes roots and signs workload SVIDs.
//!
//! Profiles are separate functions, so that a leaf can never come out as a CA. What a certificate says comes from the
//! caller's registration alone; there is no request in here that could ask for more. A leaf never outlives its issuer.

mod files;
mod issue;
mod root;

pub use files::{Private, WriteError, write};
pub use issue::{Issued, KeyType};
pub use root::{CaError, Root};
