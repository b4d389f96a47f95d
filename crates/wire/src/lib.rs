//! Bytes on the wire: an incremental parser for the TLS ClientHello, the classification of a connection's first bytes, and the
//! PROXY header: written to inform an app about its peer, and read from load balancers.
//!
//! All functions are total (no input panics), do no IO, use no clock, and never allocate for a length field before the bytes have
//! arrived. The crate depends on no TLS library on purpose: what counts as TLS must not change with one.

mod alpn;
mod batch;
mod body;
mod crc32c;
mod hello;
pub mod http1;
mod opening;
pub mod proxy_header;
pub mod proxy_v2;

pub use alpn::{CLIENT_ALPN, HBONE_ALPN, MESH_ALPN, is_mesh_alpn};
pub use batch::{BATCH_LEN, BATCH_PLAINTEXT_LEN};
pub use body::HelloInfo;
pub use hello::{HANDSHAKE_RECORD, HelloParser, Progress, classify};
pub use opening::Opening;
