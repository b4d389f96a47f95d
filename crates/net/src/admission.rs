//! Admission: which connection gets a slot, and which one gives it up.
//!
//! Two kinds of limits, for two kinds of load:
//! - [`EvictingSlots`] bounds what has proven nothing yet. A newcomer is always let in; at the limit an older connection is
//!   evicted, so that connections that stay silent cannot lock out those that do not.
//! - [`KeyedLimit`] and [`CountLimit`] bound what has been let in. They refuse the newcomer and never end what runs.
//!
//! [`ConnectionLimit`] combines them for an accept loop. Clients are told apart by [`ClientSource`], everywhere the same.
//! Every slot and permit is released when it is dropped.

mod connections;
mod limits;
mod slots;
mod source;

pub use connections::{ConnectionLimit, ConnectionPermit};
pub use limits::{CountLimit, CountPermit, KeyedLimit, KeyedPermit};
pub use slots::{EvictingSlots, Slot};
pub use source::ClientSource;
