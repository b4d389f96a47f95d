//! Copy buffers, lent while bytes move and given back when none do.
//!
//! An idle connection must hold no buffer: with tens of thousands of them that is the difference between hundreds of
//! megabytes and nothing. Each thread keeps a few free buffers of its own, so that lending takes no lock and what is
//! lent is warm in that core's cache. Buffers are never cleared between uses: whoever borrows one must read only what it
//! has written, which [`tokio::io::ReadBuf`] sees to.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};

use crate::duplex::MAX_SPARE_ROOM;

/// The content of a buffer becomes full packets, with and without TLS records around it.
pub(crate) const BUFFER_SIZE: usize = portcullis_wire::BATCH_PLAINTEXT_LEN;
/// How many free buffers a thread keeps; the rest is returned to the allocator. Bounds what a burst leaves behind to
/// 1 MiB a thread.
const MAX_FREE: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static IN_USE: Cell<isize> = const { Cell::new(0) };
}

/// How many copy buffers this thread has lent and not got back. Negative where more came back than were lent, which
/// happens on runtimes that move tasks between threads; the sum over the threads is then right.
#[must_use]
pub fn buffers_in_use() -> isize {
    IN_USE.try_with(Cell::get).unwrap_or_default()
}

/// A buffer for [`BUFFER_SIZE`] bytes, and [`MAX_SPARE_ROOM`] behind them, with arbitrary content. Goes back to the pool of
/// whichever thread drops it.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(crate) fn take() -> Self {
        count(1);
        // `try_with` fails while the thread is being torn down; the allocator serves as well then.
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        Self(free.unwrap_or_else(|| vec![0; BUFFER_SIZE + MAX_SPARE_ROOM].into_boxed_slice()))
    }
}

fn count(change: isize) {
    let _ = IN_USE.try_with(|lent| lent.set(lent.get() + change));
}

impl Drop for Buffer {
    fn drop(&mut self) {
        count(-1);
        let buffer = std::mem::take(&mut self.0);
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < MAX_FREE {
                free.push(buffer);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> usize {
        FREE.with(|free| free.borrow().len())
    }

    #[test]
    fn buffers_come_back_and_are_lent_again() {
        let before = buffers_in_use();
        let mut first = Buffer::take();
        first[0] = 42;
        let address = first.as_ptr();
        assert_eq!((first.len(), buffers_in_use()), (BUFFER_SIZE + MAX_SPARE_ROOM, before + 1));
        drop(first);
        assert_eq!(buffers_in_use(), before);
        assert_eq!(Buffer::take().as_ptr(), address);
    }

    #[test]
    fn a_burst_leaves_a_bounded_number_behind() {
        let burst: Vec<Buffer> = (0..MAX_FREE + 10).map(|_| Buffer::take()).collect();
        drop(burst);
        assert_eq!(free(), MAX_FREE);
    }
}
