//! How much is read at most.

/// The largest file that is read, 1 MiB.
///
/// A `ConfigMap` holds at most that much, and it bounds what one broken file can cost.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// The most that one folder of files may hold in all, 64 MiB. The caller that reads folders enforces it.
pub const MAX_FOLDER_BYTES: u64 = 64 * 1024 * 1024;

/// How deep collections may be nested. A PeerAuthentication in a `List` needs 6.
pub const MAX_DEPTH: usize = 64;

/// How many problems of one file are kept; the rest is only mentioned.
pub const MAX_PROBLEMS: usize = 100;
