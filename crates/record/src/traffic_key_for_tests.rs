//! Access to a key that only tests need.

use super::*;

impl Suite {
    pub(crate) const fn confidentiality_limit(self) -> u64 {
        self.confidentiality_limit
    }
}

impl TrafficKey {
    /// The same key, for the other end.
    pub(crate) fn copy(&self) -> Self {
        let mut copy = Self::derive(self.suite, TrafficSecret::new(self.secret.as_slice())).unwrap();
        copy.seq = self.seq;
        copy
    }

    pub(crate) fn set_confidentiality_limit(&mut self, limit: u64) {
        self.suite.confidentiality_limit = limit;
    }

    /// Differs between generations.
    pub(crate) fn generation(&self) -> Vec<u8> {
        self.secret.as_slice().to_vec()
    }
}
