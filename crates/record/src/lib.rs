//! The record layer of TLS 1.3 (RFC 8446, section 5) for connections whose handshake rustls has completed.
//!
//! rustls runs the handshake and decides who the peer is. What remains is small: encrypt, decrypt, and
//! four kinds of messages. rustls copies each record twice in each direction and keeps about 3 KiB per
//! connection for it, including the handshake's configuration and the peer's certificates. [`RecordLayer`] encrypts and
//! decrypts directly between the caller's buffers, and an idle connection costs two traffic keys.
//!
//! The crate does no IO: no sockets, no runtime, no clock. The caller passes in the bytes that it received, and sends the bytes
//! that it gets back. TLS 1.2 is not supported; it stays with rustls.
//!
//! Every violation of the protocol ends the connection with the alert that RFC 8446 names. The tests and the fuzz target
//! `record_stream` compare the result for valid and invalid streams of records with that of rustls.

mod buffer;
mod error;
mod frame;
mod layer;
mod post_handshake;
mod secret_log;
mod traffic_key;

pub use buffer::{PlaintextSink, SendBuffer};
pub use frame::record_len;
pub use layer::{ReadOutcome, RecordLayer};
pub use secret_log::TrafficSecretLog;

#[cfg(test)]
mod tests;
