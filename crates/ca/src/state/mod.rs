//! The persistent state of a CA: used tokens, holders of keys, expiry of each identity's certificates, and the roots that
//! each instance reports; and join tokens.
//!
//! What [`Store::commit`] acknowledged survives a crash at any point, and a crash leaves readable files. Each batch of records
//! is one line of a journal, synced before it is acknowledged; a snapshot replaces a journal that has grown too long. One
//! process locks the folder at a time.

mod error;
mod facts;
mod frame;
mod instances;
mod joins;
mod journal;
mod memory;
mod store;

pub use error::{CommitError, JoinError, StateError};
pub use facts::{Identity, Issuance, IssuanceRefusal, Report, UsedToken};
pub use instances::{Connections, Instance, ReportedBundle};
pub use joins::{JoinGrant, JoinRefusal};
pub use store::{Options, Store};

#[cfg(test)]
mod tests;
