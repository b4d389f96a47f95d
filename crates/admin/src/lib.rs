//! The admin server: health, metrics, what is in force, and a few changes, over plain HTTP/1.1.
//!
//! It runs on a runtime of its own, so that a busy data plane cannot starve `/healthz/ready`. It does not
//! depend on the proxy: [`State`] supplies the answers, and this crate controls access to them.
//!
//! - Every path and every rule about methods is in one table (`paths`).
//! - A change takes a POST. On loopback the request must name this address and must not come from a foreign web page; on any
//!   other address it must have the token (`guard`). Without a token no change is possible there. A Unix socket is as loopback.
//! - A web page that reached loopback by DNS rebinding can read only health and metrics.
//! - At the limit of connections the oldest is evicted and a newcomer is never refused; a slow client is closed
//!   after seconds.

mod answer;
mod content;
mod events;
mod guard;
mod html;
mod paths;
mod query;
mod recent_query;
mod server;
mod state;
mod token;

pub use events::Views;
pub use paths::Serves;
pub use recent_query::RecentQuery;
pub use server::{serve, serve_page, serve_unix};
pub use state::{Change, Page, State};
pub use token::{Token, TokenError};
