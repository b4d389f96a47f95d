//! What a CA remembers: which tokens were used, who holds which key, and until when each identity's certificate lasts.
//!
//! The promise: what [`Store::commit`] has said yes to is still known after a crash at any point, and a crash leaves files
//! that can be read. Each batch of records is one line of a journal, on disk before anybody is told; a snapshot replaces the
//! journal now and then. One process has the folder at a time.

mod frame;
mod journal;
mod memory;
mod store;

pub use memory::{Identity, Issuance, Refusal};
pub use store::{CommitError, Options, StateError, Store};

#[cfg(test)]
mod tests;
