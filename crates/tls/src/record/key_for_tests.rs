//! What only tests do with a key.

use super::*;

impl Suite {
    pub(crate) const fn limit(self) -> u64 {
        self.limit
    }
}

impl TrafficKey {
    /// The same key, for the other end.
    pub(crate) fn copy(&self) -> Self {
        let mut copy = Self::first(self.suite, Secret::new(self.secret.get())).unwrap();
        copy.sequence = self.sequence;
        copy
    }

    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.suite.limit = limit;
    }

    /// What is different in each generation.
    pub(crate) fn generation(&self) -> Vec<u8> {
        self.secret.get().to_vec()
    }
}
