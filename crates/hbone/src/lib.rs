//! HBONE without its meaning: HTTP/2 CONNECT streams on one connection, each a byte stream to be copied.
//!
//! Guarantees:
//! - What a peer can make this side hold or do is bounded: streams, header lists, unread bytes of a stream and of a tunnel, streams
//!   that are reset before they are answered. A peer that goes beyond ends its tunnel, with ENHANCE_YOUR_CALM.
//! - A tunnel whose peer does not answer a PING in time is given up, and so is one that nobody uses.
//! - A reset is a reset: RST_STREAM of the peer, and the loss of the tunnel, are errors of the stream and never its clean end; a
//!   stream that is dropped before both of its directions have ended is reset with CONNECT_ERROR.
//! - A stream that is not read holds at most [`limits::STREAM_WINDOW`] bytes, and keeps no other from being read, however many there
//!   are of them. What it holds is what [`portcullis_net::Duplex::held`] says.
//! - What a peer sends on a stream before it sees that the stream was reset is no fault of it.
//!
//! It knows no identities, policies or certificates: the connection that it is given is authenticated already.

mod authority;
mod claims;
mod client;
mod coalesce;
mod count;
pub mod limits;
mod request;
mod server;
mod stream;
mod upkeep;

pub use authority::{AuthorityError, parse_authority};
pub use claims::{Claims, TraceParent};
pub use client::{ClientTunnel, Connect, OpenError, StreamPermit, TunnelHandle, connect};
pub use request::{BadRequest, ConnectRefusal, Request};
pub use server::{Event, ServerTunnel};
pub use stream::TunnelStream;
pub use upkeep::TunnelEnd;
