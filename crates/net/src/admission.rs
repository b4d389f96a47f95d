//! Admission: which connection gets a slot, and which one gives it up.
//!
//! Two kinds of limits, for two kinds of load:
//! - [`EvictingSlots`] bounds connections that are not authorised yet. A newcomer is always admitted; at the limit an older
//!   connection is evicted, so that silent connections cannot lock out the others.
//! - [`KeyedLimit`] and [`CountLimit`] bound what is authorised. They refuse the newcomer and never close an older one.
//!
//! [`ConnectionLimit`] combines them for an accept loop. [`ClientSource`] defines what counts
//! as one client.
//! Every slot and permit is released when it is dropped.

mod connections;
mod limits;
mod slots;
mod source;

pub use connections::{ConnectionLimit, ConnectionPermit};
pub use limits::{CountLimit, CountPermit, KeyedLimit, KeyedPermit};
pub use slots::{EvictingSlots, Slot};
pub use source::ClientSource;
