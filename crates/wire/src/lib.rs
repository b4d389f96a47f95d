//! Bytes that a peer controls: an incremental TLS ClientHello parser and what an opening is
