//! What was sealed and not sent, because the connection did not take it.

use portcullis_buffers::{Buffer, PIECE};

/// Bytes that wait to be sent, from `start` to `end` of the memory. Empty, it holds no memory.
#[derive(Default)]
pub(crate) struct Unsent {
    memory: Memory,
    start: usize,
    end: usize,
}

enum Memory {
    /// Alerts, answers to key updates, the end of a handshake, and the rest of a small write.
    Small(Vec<u8>),
    /// The rest of a large write: as large as what the copy loop holds, so it goes back where that does.
    Large(Buffer),
}

impl Default for Memory {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl Unsent {
    pub(crate) fn rest(&self) -> &[u8] {
        match &self.memory {
            Memory::Small(bytes) => bytes.get(self.start..self.end),
            Memory::Large(buffer) => buffer.get(self.start..self.end),
        }
        .unwrap_or_default()
    }

    /// Asked several times for each read and write, so it does not look at the memory.
    pub(crate) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How much memory it holds.
    pub(crate) fn held(&self) -> usize {
        match &self.memory {
            Memory::Small(bytes) => bytes.capacity(),
            Memory::Large(buffer) => buffer.len(),
        }
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Gives a large buffer back if little is left in it.
    pub(crate) fn shrink(&mut self) {
        if let Memory::Large(_) = &self.memory
            && self.rest().len() <= PIECE
        {
            self.move_to_heap();
        }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        // Each read comes here, mostly with nothing.
        if !bytes.is_empty() {
            self.append(bytes);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.is_empty() && bytes.len() > PIECE {
            *self = Self { memory: Memory::Large(Buffer::take()), start: 0, end: 0 };
        }
        if let Memory::Large(buffer) = &mut self.memory {
            let rest = self.end - self.start;
            if rest + bytes.len() <= buffer.len() {
                buffer.copy_within(self.start..self.end, 0);
                if let Some(space) = buffer.get_mut(rest..rest + bytes.len()) {
                    space.copy_from_slice(bytes);
                }
                (self.start, self.end) = (0, rest + bytes.len());
                return;
            }
            // More than a batch: only a message of TLS behind a whole one.
            self.move_to_heap();
        }
        if let Memory::Small(small) = &mut self.memory {
            small.extend_from_slice(bytes);
            self.end = small.len();
        }
    }

    fn move_to_heap(&mut self) {
        let rest = self.rest().to_vec();
        *self = Self { start: 0, end: rest.len(), memory: Memory::Small(rest) };
    }
}

#[cfg(test)]
mod tests {
    use portcullis_buffers::buffers_in_use;
    use portcullis_wire::BATCH_LEN;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_sent_frees_its_memory() {
        let mut unsent = Unsent::default();
        assert_eq!((unsent.held(), unsent.is_empty()), (0, true));
        unsent.add(&[1; 100]);
        assert!((100..=PIECE).contains(&unsent.held()));
        unsent.advance(100);
        assert_eq!((unsent.held(), unsent.is_empty()), (0, true));
        unsent.add(&vec![1; 100_000]);
        assert_eq!((unsent.held(), buffers_in_use()), (BATCH_LEN, 1));
        unsent.advance(99_000);
        unsent.shrink();
        assert_eq!((unsent.held(), buffers_in_use()), (1000, 0));
        assert_eq!(unsent.rest(), [1; 1000]);
        unsent.advance(1000);
        assert_eq!((unsent.held(), unsent.is_empty()), (0, true));
    }

    /// A stream adds what a read has left to be sent, mostly nothing, whether or not a large write waits.
    #[test]
    fn a_large_rest_stays_in_its_buffer_when_little_or_nothing_is_added() {
        let mut unsent = Unsent::default();
        unsent.add(&vec![1; BATCH_LEN]);
        unsent.add(&[]);
        assert_eq!((unsent.held(), buffers_in_use()), (BATCH_LEN, 1));
        unsent.advance(100);
        unsent.add(&[2; 24]);
        assert_eq!((unsent.held(), buffers_in_use()), (BATCH_LEN, 1));
        assert_eq!(unsent.rest(), [vec![1; BATCH_LEN - 100], vec![2; 24]].concat());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn bytes_come_out_as_they_went_in(steps in vec((0..300_000_usize, 0..300_000_usize, any::<bool>()), 1..8)) {
            let (mut unsent, mut expected, mut next) = (Unsent::default(), Vec::new(), 0_u8);
            for (added, sent, shrink) in steps {
                let bytes: Vec<u8> = (0..added).map(|_| { next = next.wrapping_add(7); next }).collect();
                unsent.add(&bytes);
                expected.extend_from_slice(&bytes);
                let sent = sent.min(expected.len());
                unsent.advance(sent);
                expected.drain(..sent);
                if shrink {
                    unsent.shrink();
                }
                prop_assert!(unsent.rest() == expected);
                prop_assert_eq!(unsent.held() == 0, expected.is_empty());
            }
        }
    }
}
