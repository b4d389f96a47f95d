//! The admin server: health, metrics, what is in force, and a few changes, over plain HTTP/1.1.
//!
//! It runs on a runtime of its own, so that a busy data plane cannot starve `/healthz/ready`. It knows nothing of the
//! proxy: what to answer comes through [`State`], and this crate knows who may ask for it.
//!
//! - Every path and every rule about methods is in one table (`paths`).
//! - A change takes a POST. On loopback the request must be meant for this very address and not come from a foreign web
//!   page, everywhere else it must show the token (`guard`). Where nobody can be told apart, nobody may change anything.
//! - Pages that say more than health and metrics are not shown to a page that reached loopback under a name of its own.
//! - A slow client costs the oldest client its place, never the newest ([`Places`]), and itself after seconds.

mod answer;
mod guard;
mod html;
mod paths;
mod query;
mod server;
mod state;
mod token;

pub use paths::Serves;
pub use server::serve;
pub use state::{Change, Page, State};
pub use token::{Token, TokenError};
