//! Buffers that all connections of a thread use in turns, for the time of one call.
//!
//! What a connection has to keep, it copies out; so an idle one keeps nothing. The buffers are not cleared between uses:
//! whoever borrows them reads only what it has written.

use std::cell::Cell;
use std::mem::take;

/// The most that is read at once, and sent: sixteen records that make four packets on loopback and on networks whose packets the
/// kernel cuts itself (`portcullis_net` has a copy buffer of what is in them).
pub(crate) const MOST: usize = 4 * 64_000;

thread_local! {
    static FREE: Cell<Option<(Vec<u8>, Outgoing)>> = const { Cell::new(None) };
}

pub(crate) struct Scratch {
    /// Of a fixed size, with arbitrary content.
    pub(crate) incoming: Vec<u8>,
    /// Empty, with room.
    pub(crate) outgoing: Outgoing,
}

/// Bytes to be sent. What has been reserved once stays initialised, so that it is not cleared for each use.
#[derive(Default)]
pub(crate) struct Outgoing {
    space: Vec<u8>,
    filled: usize,
}

impl Outgoing {
    pub(crate) fn filled(&self) -> &[u8] {
        self.space.get(..self.filled).unwrap_or_default()
    }

    /// Room for so many bytes behind what is there, with arbitrary content; see [`Outgoing::add`].
    pub(crate) fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.filled + length;
        if self.space.len() < end {
            self.space.resize(end, 0);
        }
        self.space.get_mut(self.filled..end).unwrap_or_default()
    }

    /// So many bytes of the room have been written.
    pub(crate) fn add(&mut self, length: usize) {
        self.filled = (self.filled + length).min(self.space.len());
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.add(bytes.len());
    }

    fn clear(&mut self) {
        self.filled = 0;
    }
}

impl Scratch {
    pub(crate) fn lend() -> Self {
        // `try_with` fails while the thread is being torn down; new ones serve as well then, and for whoever needs a
        // second pair meanwhile.
        let free = FREE.try_with(Cell::take).ok().flatten();
        let (incoming, outgoing) = free.unwrap_or_else(|| (vec![0; MOST], Outgoing::default()));
        Self { incoming, outgoing }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.outgoing.clear();
        let free = (take(&mut self.incoming), take(&mut self.outgoing));
        let _ = FREE.try_with(|slot| slot.set(Some(free)));
    }
}
