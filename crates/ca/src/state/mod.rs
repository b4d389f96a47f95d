//! What a CA remembers: which tokens were used, who holds which key, until when each identity's certificate lasts,
//! and which roots each of its instances has said that it uses.
//!
//! The promise: what [`Store::commit`] has said yes to is still known after a crash at any point, and a crash leaves files
//! that can be read. Each batch of records is one line of a journal, on disk before anybody is told; a snapshot replaces the
//! journal now and then. One process has the folder at a time.

mod error;
mod facts;
mod frame;
mod instances;
mod journal;
mod memory;
mod store;

pub use error::{CommitError, StateError};
pub use facts::{Identity, Issuance, Refusal, Report, UsedToken};
pub use instances::{Connections, Instance, ReportedBundle};
pub use store::{Options, Store};

#[cfg(test)]
mod tests;
