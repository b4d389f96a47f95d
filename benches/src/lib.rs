//! What the benches of the whole proxy stand on: two real sidecar processes of the release binary, one before a client
//! and one before an app, and the processor time that each has used.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench that cannot set its scene has failed"
)]

mod app;
mod sidecar;

pub use app::{App, Client};
pub use sidecar::{Scene, Sidecar, binary};
