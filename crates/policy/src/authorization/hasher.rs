//! A fast hash for look-ups by what a connection shows.
//!
//! Keys come from policies, which are trusted; a peer only chooses what is looked up, so it cannot fill a bucket. The standard
//! library's keyed hash would be most of the cost of a decision.

use std::hash::Hasher;

/// Multiplies and rotates eight bytes at a time, as the compiler's own hash does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QuickHasher(u64);

/// An odd constant without structure.
const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;

impl QuickHasher {
    const fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            self.add(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.add(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    /// The map takes the low bits for its bucket, and multiplication mixes the high ones best.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash as _;

    use super::*;

    #[test]
    fn names_that_differ_in_one_character_spread() {
        let hash = |text: &str| {
            let mut hasher = QuickHasher::default();
            text.hash(&mut hasher);
            hasher.finish()
        };
        let names = (0..10_000).map(|n| format!("cluster.local/ns/shop/sa/account{n}"));
        let all: Vec<u64> = names.map(|name| hash(&name)).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 10_000);
        // Thrown into as many buckets at random, names would meet in some, and leave 37 % of the buckets empty.
        let buckets = all.iter().map(|hash| hash % 16_384).collect::<HashSet<_>>();
        assert!(buckets.len() > 6_500, "{}", buckets.len());
    }
}
