//! Which port numbers may be label values.
//!
//! A client of a captured listener chooses the port it dials, and 65,536 series are too many: a port is known once the
//! configuration or a policy names it, or an app has accepted there.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

const WORD_BITS: usize = 64;

/// A set of ports that only grows.
pub(crate) struct KnownPorts(Vec<AtomicU64>);

impl Default for KnownPorts {
    fn default() -> Self {
        Self((0..=usize::from(u16::MAX) / WORD_BITS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl KnownPorts {
    pub(crate) fn allow(&self, port: u16) {
        let (word, bit) = slot(port);
        if let Some(word) = self.0.get(word)
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_known(&self, port: u16) -> bool {
        let (word, bit) = slot(port);
        self.0.get(word).is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }

    pub(crate) fn label(&self, port: u16) -> Cow<'static, str> {
        if self.is_known(port) { Cow::Owned(port.to_string()) } else { Cow::Borrowed("other") }
    }
}

fn slot(port: u16) -> (usize, u64) {
    let port = usize::from(port);
    (port / WORD_BITS, 1 << (port % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_itself_and_no_other() {
        let ports = KnownPorts::default();
        for port in [0, 63, 64, 8080, u16::MAX] {
            assert_eq!(ports.label(port), "other");
            ports.allow(port);
            assert_eq!(ports.label(port), port.to_string());
        }
        assert_eq!(ports.label(8081), "other");
    }
}
