//! The data plane: what happens to one connection, from accept to its access-log line.
//!
//! `inbound` and `outbound` each tell the story of one connection from top to bottom. A connection takes one
//! snapshot of policy and credentials and keeps it. Nothing falls back: an outbound handshake that fails is reset, never
//! sent as plaintext, and an inbound one that fails never reaches the app.
//!
//! The data plane runs on single-threaded runtimes, one for each worker, each with its own listening sockets; see
//! [`engine`].

mod captured;
pub mod changes;
pub mod drain;
mod end;
pub mod engine;
mod expiry;
mod handshakes;
mod hint;
mod inbound;
pub mod limits;
mod outbound;
mod peers;
mod relay;
mod route;
mod seldom;
mod way;
mod world;

pub use world::{Snapshot, World};
