//! What other policies would have done with the connections that were observed.
//!
//! Each observation becomes the facts of a connection, and is decided under the policies in force and under the new ones, as the sidecar
//! would. An observation sums up the connections of one peer, so some facts are known of the last connection only; where an answer depends
//! on those, the row says that it is not decided, and why.

mod build;
mod decision;
mod model;
mod report;

pub use model::{Change, Decider, Drift, Options, Replay, Row, TooShort};
