//! The connection limit that the open-files limit allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::plain;

/// Connections at once, where descriptors allow it.
const CONNECTIONS: u64 = 512;

/// How many connections there may be at once. Raises the limit of open files first, as far as that is ours to do.
pub(crate) fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Refused only by a sandbox; then the soft limit is what there is.
    let open_files =
        if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current.or(limit.maximum) };
    fitting(open_files)
}

/// A quarter of the descriptors, at least 16, is reserved for the state, the audit, the watched files and `ca.sock`. Without it
/// connections could exhaust the descriptors, and nothing could be issued.
fn fitting(open_files: Option<u64>) -> usize {
    let files = open_files.unwrap_or(u64::MAX);
    let kept = (files / 4).clamp(16, 256).saturating_add(plain::MAX_CONNECTIONS as u64);
    usize::try_from(files.saturating_sub(kept).clamp(8, CONNECTIONS)).unwrap_or(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_what_the_ca_itself_opens() {
        for (files, connections) in [(Some(160), 88), (Some(256), 160), (Some(1024), 512), (None, 512), (Some(20), 8)] {
            assert_eq!(fitting(files), connections, "{files:?}");
        }
    }
}
