//! How many connections the file descriptors of the process allow.

use std::sync::Arc;

use portcullis_config::Settings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::buffers::Buffers;

/// The limit on connections in force: the configured one, or what the file descriptors allow. Raises their limit first.
#[must_use]
pub fn connections(settings: &Settings) -> usize {
    let open_files = raise_open_files();
    settings.limits.connections.unwrap_or_else(|| fitting(open_files))
}

/// How many connections may be undecided at once. Silent clients must not use up a small connection limit, so half of it is
/// left to admitted connections.
#[must_use]
pub fn handshakes(settings: &Settings, connections: usize) -> usize {
    /// With fewer, a few honest clients at once would evict each other.
    const MIN: usize = 4;
    settings.limits.handshakes.min((connections / 2).max(MIN))
}

/// The budget for the memory of stalled connections.
#[must_use]
pub fn buffers(settings: &Settings) -> Arc<Buffers> {
    Buffers::new(settings.limits.buffers)
}

/// Raises the soft limit on open files to the hard one and returns it; `None` is no limit.
fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Only a sandbox refuses this; then the soft limit applies.
        if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_err() {
            return limit.current;
        }
    }
    limit.maximum
}

/// The limit on connections when the configuration gives none: each takes two descriptors, and a quarter of them, at least
/// 16 and at most 256, is reserved for files, listeners and the admin port.
fn fitting(open_files: Option<u64>) -> usize {
    /// Without a limit on files, memory and the semaphore limit the connections.
    const MAX_FILES: u64 = 1 << 20;
    let files = open_files.unwrap_or(MAX_FILES).min(MAX_FILES);
    let reserve = (files / 4).clamp(16, 256);
    usize::try_from((files.saturating_sub(reserve) / 2).max(8)).unwrap_or(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_the_documented_formula() {
        assert_eq!(fitting(Some(160)), 60);
        assert_eq!(fitting(Some(1024)), 384);
        assert_eq!(fitting(Some(20_000)), 9872);
        assert_eq!(fitting(Some(10)), 8);
    }
}
