//! Bytes that a peer controls: an incremental TLS ClientHello parser and what an opening is; and the header by which the app
//! learns who the peer is.
//!
//! Everything here is total (no input panics), does no IO, knows no clock, and never reserves memory for what a length
//! field claims before the bytes are there. It depends on no TLS library on purpose: what is TLS on the wire must not
//! change with one.

mod alpn;
mod batch;
mod body;
mod hello;
pub mod http1;
mod opening;
pub mod proxy_v2;

pub use alpn::{CLIENT_ALPN, MESH_ALPN, is_mesh_alpn};
pub use batch::{BATCH_LEN, BATCH_PLAINTEXT_LEN};
pub use body::HelloInfo;
pub use hello::{HANDSHAKE_RECORD, HelloParser, Progress, classify};
pub use opening::Opening;
