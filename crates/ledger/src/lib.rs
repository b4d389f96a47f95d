//! What one sidecar remembers of connections: who was seen talking to the workload, and to whom it talked, since when and how
//! often.
//!
//! An observation is one peer at one port by one transport. The peer is its verified identity, or without one its address. A known
//! pair costs a connection two short locks and no allocation.
//!
//! Guarantees:
//!
//! - The table is bounded, and what is given up is counted. New clients cannot take the room of peers with an identity, nor all of
//!   the room of clients that are known for long; one client cannot take much room, however many ports or IPv6 addresses it uses.
//! - With a folder, the table survives restarts. The file is replaced as a whole, so it is never half written.
//! - No failure of the disk reaches a connection or the start of the process.
//!
//! Refuses: knowing what a connection carried.

mod clock;
mod entry;
mod eviction;
mod file;
mod key;
mod ledger;
mod names;
mod readiness;
mod snapshot;
mod store;
mod writer;

pub use clock::{Clock, SystemClock};
pub use key::{ConnAttributes, RefusalCause};
pub use ledger::{Ledger, Observed};
pub use writer::{LedgerFile, Writer};
