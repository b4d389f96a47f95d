//! How many connections fit into the descriptors that the system grants.

use portcullis_config::Settings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The cap on connections that is in force: the configured one, or what the descriptors allow. Raises their limit first.
#[must_use]
pub fn in_force(settings: &Settings) -> usize {
    let open_files = raise_open_files();
    settings.limits.connections.unwrap_or_else(|| connections(open_files))
}

/// How many may be undecided at once. Whoever is silent must not take all places of a small cap either: they leave half of it
/// to those that are admitted.
#[must_use]
pub fn handshakes(settings: &Settings, connections: usize) -> usize {
    /// Below that there is no telling a flood from a few clients at once.
    const LEAST: usize = 4;
    settings.limits.handshakes.min((connections / 2).max(LEAST))
}

/// Raises the soft limit of open files to the hard one and says how many that is; `None` without a limit.
fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused only by a sandbox; then the soft limit is what there is.
        if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_err() {
            return limit.current;
        }
    }
    limit.maximum
}

/// The cap on connections when the configuration gives none: each takes two descriptors, and a quarter of them, at least
/// 16 and at most 256, is kept for files, listeners and the admin port.
fn connections(open_files: Option<u64>) -> usize {
    /// Where nothing limits us, memory does, and the semaphore that counts.
    const MOST: u64 = 1 << 20;
    let files = open_files.unwrap_or(MOST).min(MOST);
    let reserve = (files / 4).clamp(16, 256);
    usize::try_from((files.saturating_sub(reserve) / 2).max(8)).unwrap_or(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_follows_the_documented_formula() {
        assert_eq!(connections(Some(160)), 60);
        assert_eq!(connections(Some(1024)), 384);
        assert_eq!(connections(Some(20_000)), 9872);
        assert_eq!(connections(Some(10)), 8);
    }
}
