//! What one tunnel may use, and how long it lives.

use std::time::Duration;

/// Streams that a peer may have open on one tunnel; ztunnel accepts as many.
pub const STREAMS: u32 = 200;
/// Streams that this side opens on one tunnel.
pub const CLIENT_STREAMS: u32 = 100;
/// Bytes of one stream that are received and not read yet.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a tunnel that a peer opened: as much as they may hold each, so that no number of streams that are not
/// read keeps another one from being read. A peer with as many TCP connections could make the kernel hold more.
pub const SERVER_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// The same for a tunnel of this side.
pub const CLIENT_WINDOW: u32 = CLIENT_STREAMS * STREAM_WINDOW;
/// Bytes of one stream that are written and not sent yet.
pub const SEND_BUFFER: usize = 256 * 1024;
/// The largest frame that is taken: a few records of TLS, and little enough that streams take turns.
pub const FRAME: u32 = 64 * 1024;
/// The header list of a request, as HTTP/2 counts it. An HBONE request has a few hundred bytes.
pub const HEADER_LIST: u32 = 16 * 1024;
/// Streams that were reset by the peer and not looked at yet; beyond that the tunnel ends.
pub const PENDING_RESETS: usize = 20;
/// Streams that this side has reset and remembers for [`RESET_KNOWN_FOR`]: what the peer has sent before it saw the reset belongs to
/// no stream otherwise, and each frame of it counts as a broken rule. Five times as many as a tunnel has.
pub const KNOWN_RESETS: usize = 1000;
/// Longer than what the peer has sent is on its way, also through buffers of megabytes.
pub const RESET_KNOWN_FOR: Duration = Duration::from_secs(5);
/// Frames for which this side had to reset a stream, since the peer broke a rule; beyond that the tunnel ends. They are counted for
/// the whole life of a tunnel, and frames that come late for a reset that is not known any more are among them: as many as `h2` allows.
pub const BROKEN_STREAMS: usize = 1024;
/// Streams that the peer may have reset before they were answered, beyond one in ten of those that were.
pub const EARLY_RESETS: usize = 100;

/// From one answered PING to the next PING.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// How long the peer has to answer.
pub const PONG_WITHIN: Duration = Duration::from_secs(20);
/// The client's side of a tunnel without streams ends it after this long.
pub const CLIENT_IDLE: Duration = Duration::from_secs(300);
/// The server's side of it: later, so that a client does not use what is about to end.
pub const IDLE: Duration = Duration::from_secs(2 * CLIENT_IDLE.as_secs());
/// A tunnel takes no new streams after this long, plus up to a tenth: the peer opens another, with what is valid then.
pub const MAX_AGE: Duration = Duration::from_secs(3600);
