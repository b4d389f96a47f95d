//! Listening, original destination, detection, replay and the copy loop; knows nothing of policy.
//!
//! What is here moves bytes and says what happened to them. It never decides whether it should have: a port's mode, the
//! identity of a peer and the wording of a refusal live above. Every wait on a remote has a deadline that the caller
//! names, except [`accept`], which waits for work.

pub mod accept;
mod addr;
pub mod copy;
pub mod detect;
mod duplex;
pub mod listen;
mod orig_dst;
mod pool;
mod replay;
pub mod socket;

pub use addr::{ClientAddr, OrigDst, is_own_address};
pub use copy::{ByteCounts, Copied, CopyEnd, CopyLimits, FlowEnd, Side, Stage, bidirectional};
pub use detect::{Detected, Detector, Sniff, detect};
pub use duplex::{Duplex, reset_both};
pub use orig_dst::original_destination;
pub use pool::buffers_lent;
pub use replay::Replay;
