//! Limits on what is read.

/// The largest file that is read: 1 MiB, far above any policy file or certificate chain.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The most bytes that a folder's files may have together: 64 MiB.
pub const MAX_FOLDER_BYTES: u64 = 64 * 1024 * 1024;

/// The most entries that are read, of any kind, so that links to folders cannot multiply without end.
pub const MAX_FOLDER_ENTRIES: usize = 100_000;

/// How deep folders may be nested.
pub const MAX_FOLDER_DEPTH: usize = 32;
