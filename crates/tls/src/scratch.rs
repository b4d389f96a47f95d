//! Buffers that all connections of a thread use in turns, for the time of one call.
//!
//! A connection copies out what it has to keep, so an idle one keeps nothing. The buffers are not cleared between uses: the
//! borrower reads only what it has written.

use std::cell::Cell;
use std::mem::take;

use portcullis_record::SendBuffer;
use portcullis_wire::BATCH_LEN;

thread_local! {
    static FREE: Cell<Option<(Vec<u8>, SendBuffer)>> = const { Cell::new(None) };
}

pub(crate) struct Scratch {
    /// Of a fixed size, with arbitrary content.
    pub(crate) incoming: Vec<u8>,
    /// Empty, with room.
    pub(crate) outgoing: SendBuffer,
}

impl Scratch {
    pub(crate) fn lend() -> Self {
        // New buffers are allocated while the thread is being torn down (`try_with` fails), and if the pair is in use.
        let free = FREE.try_with(Cell::take).ok().flatten();
        let (incoming, outgoing) = free.unwrap_or_else(|| (vec![0; BATCH_LEN], SendBuffer::default()));
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
