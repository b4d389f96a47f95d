//! The memory that a connection borrows while bytes move, and the budget for what stalled connections keep.
//!
//! A connection that is idle, or whose receiver keeps up, holds no buffer between two wake-ups. One whose receiver does
//! not keep up holds what was read and could not be written. That memory is what a peer can make the proxy spend, so it
//! is charged to a [`Budget`], in total and for each peer. Once the budget is spent, connections read no more than
//! [`PIECE`] at once, and only when their receiver takes it.

mod budget;
mod pool;

pub use budget::{Account, Budget, Charge, Usage};
pub use pool::{Buffer, buffers_in_use, release_unused};

/// What is read at once by a connection that may not keep a whole buffer: what fits into one TLS record.
pub const PIECE: usize = 16 * 1024;
