//! The admin server: readiness, liveness and metrics over plain HTTP/1.1.
//!
//! It runs on a runtime of its own, so that a busy data plane cannot starve `/healthz/ready`. It knows nothing of the
//! proxy: what to answer comes through [`State`]. Nothing here changes anything, so only GET and HEAD are answered.
//! Connections are bounded in number and in time: a slow client costs a slot for seconds, not for ever.

mod server;

pub use server::{Serves, State, serve};
