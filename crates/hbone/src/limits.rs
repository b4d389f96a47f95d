//! What one tunnel may use, and how long it lives.

use std::time::Duration;

/// Streams that a peer may have open on one tunnel; ztunnel accepts as many.
pub const STREAMS: u32 = 200;
/// Streams that this side opens on one tunnel.
pub const CLIENT_STREAMS: usize = 100;
/// Bytes of one stream that are received and not read yet.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a tunnel together. Larger than the window of a stream, or one that is not read would hold up all.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of one stream that are written and not sent yet.
pub const SEND_BUFFER: usize = 256 * 1024;
/// The largest frame that is taken: a few records of TLS, and little enough that streams take turns.
pub const FRAME: u32 = 64 * 1024;
/// The header list of a request, as HTTP/2 counts it. An HBONE request has a few hundred bytes.
pub const HEADER_LIST: u32 = 16 * 1024;
/// Streams that were reset by the peer and not looked at yet; beyond that the tunnel ends.
pub const PENDING_RESETS: usize = 20;
/// Streams that this side had to reset since the peer broke a rule of a stream; beyond that the tunnel ends.
pub const BROKEN_STREAMS: usize = 64;
/// Streams that the peer may have reset before they were answered, beyond one in ten of those that were.
pub const EARLY_RESETS: usize = 100;

/// From one answered PING to the next PING.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// How long the peer has to answer.
pub const PONG_WITHIN: Duration = Duration::from_secs(20);
/// A tunnel without streams ends after this long. Clients release theirs after half of it.
pub const IDLE: Duration = Duration::from_secs(600);
/// The client's side of a tunnel without streams ends it after this long.
pub const CLIENT_IDLE: Duration = Duration::from_secs(300);
/// A tunnel takes no new streams after this long, plus up to a tenth: the peer opens another, with what is valid then.
pub const MAX_AGE: Duration = Duration::from_secs(3600);
