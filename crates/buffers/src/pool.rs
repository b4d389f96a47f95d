//! Buffers, lent while bytes move and given back when none do.
//!
//! Each thread keeps a few free buffers of its own, so that lending takes no lock and what is lent is warm in that core's
//! cache. Buffers are never cleared between uses: the borrower reads only what it has written.
//!
//! A buffer is an anonymous memory map of its own. With the allocator's memory, what a burst of stalled connections has
//! taken would stay with the process: glibc raises its threshold for maps with the first one that is freed, and returns
//! memory of its heap only from the end.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;
use portcullis_wire::BATCH_LEN;

/// How many free buffers a thread keeps; the rest is returned to the system. Bounds what a burst leaves behind to 1 MiB a
/// thread.
const MAX_FREE: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<MmapMut>> = const { RefCell::new(Vec::new()) };
    static IN_USE: Cell<isize> = const { Cell::new(0) };
}

/// How many buffers this thread has lent and not got back. Negative where more came back than were lent, which happens on
/// runtimes that move tasks between threads; the sum over the threads is then right.
#[must_use]
pub fn buffers_in_use() -> isize {
    IN_USE.try_with(Cell::get).unwrap_or_default()
}

/// Memory for bytes on their way, with arbitrary content.
#[derive(Debug)]
pub struct Buffer(Memory);

#[derive(Debug)]
enum Memory {
    /// Goes back to the pool of whichever thread drops it.
    Lent(MmapMut),
    /// Of the allocator.
    Own(Box<[u8]>),
}

impl Buffer {
    /// [`BATCH_LEN`] bytes.
    #[must_use]
    pub fn take() -> Self {
        // `try_with` fails while the thread is being torn down; a new map serves as well then.
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        let map = free.map_or_else(|| MmapMut::map_anon(BATCH_LEN), Ok);
        // A system without room for one more map may still have memory.
        map.map_or_else(
            |_| Self(Memory::Own(vec![0; BATCH_LEN].into_boxed_slice())),
            |map| {
                count(1);
                Self(Memory::Lent(map))
            },
        )
    }

    /// A copy of `bytes` that takes no more room than they do.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(Memory::Own(bytes.into()))
    }
}

fn count(change: isize) {
    let _ = IN_USE.try_with(|lent| lent.set(lent.get() + change));
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Memory::Lent(map) = std::mem::replace(&mut self.0, Memory::Own(Box::default())) else { return };
        count(-1);
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < MAX_FREE {
                free.push(map);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Lent(map) => map,
            Memory::Own(bytes) => bytes,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Lent(map) => map,
            Memory::Own(bytes) => bytes,
        }
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
        assert_eq!((first.len(), buffers_in_use()), (BATCH_LEN, before + 1));
        drop(first);
        assert_eq!(buffers_in_use(), before);
        assert_eq!(Buffer::take().as_ptr(), address);
    }

    #[test]
    fn a_copy_is_as_large_as_its_bytes_and_is_not_lent() {
        let before = (buffers_in_use(), free());
        let copy = Buffer::copy_of(b"rest");
        assert_eq!(&*copy, b"rest");
        assert_eq!(buffers_in_use(), before.0);
        drop(copy);
        assert_eq!((buffers_in_use(), free()), before);
    }

    /// Memory of this process that lies in RAM.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Also when the allocator has seen large blocks come and go, after which glibc takes such blocks from its heap. A
    /// small block behind each buffer is what a connection is: it would pin the heap.
    /// In a process of its own, since other tests take memory too.
    #[test]
    fn a_burst_leaves_a_bounded_number_behind_and_no_memory() {
        const NAME: &str = "pool::tests::a_burst_leaves_a_bounded_number_behind_and_no_memory";
        const ALONE: &str = "PORTCULLIS_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let output = alone.args(["--exact", NAME]).env(ALONE, "1").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        const BURST: usize = 400;
        drop(vec![1_u8; 4 << 20]);
        let before = resident();
        let mut burst: Vec<(Buffer, Box<[u8]>)> = (0..BURST).map(|_| (Buffer::take(), vec![1; 64].into())).collect();
        for (buffer, _) in &mut burst {
            buffer.fill(1);
        }
        assert!(resident() - before > BURST * BATCH_LEN * 9 / 10, "the buffers are used");
        let pins: Vec<Box<[u8]>> = burst.into_iter().map(|(_, pin)| pin).collect();
        assert_eq!(free(), MAX_FREE);
        let left = resident().saturating_sub(before);
        assert!(left < 8 << 20, "{left} bytes are left of {}", BURST * BATCH_LEN);
        drop(pins);
    }
}
