//! Listening, admission, original destination, protocol detection, replay and the copy loop; knows nothing of policy.
//!
//! This crate moves bytes and reports what happened to them. It never decides whether a connection is allowed: the mode of
//! a port, the identity of a peer and the wording of a refusal belong to the crates above. Every wait on a remote has a
//! deadline that the caller gives, except [`accept`], which waits for work.

pub mod accept;
mod addr;
pub mod admission;
pub mod copy;
pub mod detect;
mod duplex;
pub mod listen;
mod orig_dst;
mod replay;
pub mod socket;

pub use addr::{ClientAddr, OrigDst, is_own_address};
pub use copy::{ByteCounts, Copied, CopyEnd, CopyLimits, FlowEnd, IoOperation, Side, bidirectional};
pub use detect::{Detected, Detector, Sniff, detect};
pub use duplex::{Duplex, reset_both};
pub use orig_dst::original_destination;
pub use portcullis_buffers::buffers_in_use;
pub use replay::Replay;
