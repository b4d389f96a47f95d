//! Buffers, lent while bytes move and given back when none do.
//!
//! Each thread keeps a few free buffers of its own, so that lending takes no lock and what is lent is warm in that core's
//! cache. Buffers are never cleared between uses: the borrower reads only what it has written.
//!
//! A buffer is an anonymous memory map of its own. With the allocator's memory, what a burst of stalled connections has
//! taken would stay with the process: glibc raises its threshold for maps with the first one that is freed, and returns
//! memory of its heap only from the end.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;
use portcullis_wire::BATCH_LEN;

/// How many free buffers a thread keeps while they are used again: connections that stall for moments, of which a thread may
/// have dozens, would otherwise pay for a map and its page faults each time.
const MAX_FREE: usize = 32;
/// How many it keeps when they are not. Bounds what a burst leaves behind to 1 MiB a thread.
const MAX_UNUSED: usize = 4;

struct Pool {
    free: Vec<MmapMut>,
    /// The fewest that were free since [`release_unused`] was called: so many were not needed.
    fewest: usize,
    lent: isize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: Vec::new(), fewest: 0, lent: 0 }) };
}

/// How many buffers this thread has lent and not got back. Negative where more came back than were lent, which happens on
/// runtimes that move tasks between threads; the sum over the threads is then right.
#[must_use]
pub fn buffers_in_use() -> isize {
    POOL.try_with(|pool| pool.borrow().lent).unwrap_or_default()
}

/// Returns free buffers of this thread to the system that were not needed since the last call. To be called now and then.
pub fn release_unused() {
    let _ = POOL.try_with(|pool| {
        let Pool { free, fewest, .. } = &mut *pool.borrow_mut();
        let kept = free.len().saturating_sub(*fewest).max(MAX_UNUSED);
        free.truncate(kept);
        *fewest = free.len();
    });
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
        let free = POOL.try_with(|pool| {
            let pool = &mut *pool.borrow_mut();
            pool.lent += 1;
            let map = pool.free.pop()?;
            pool.fewest = pool.fewest.min(pool.free.len());
            Some(map)
        });
        free.ok().flatten().map_or_else(Self::new, |map| Self(Memory::Lent(map)))
    }

    #[cold]
    fn new() -> Self {
        MmapMut::map_anon(BATCH_LEN).map_or_else(
            |_| {
                // A system without room for one more map may still have memory. It is not counted as lent.
                let _ = POOL.try_with(|pool| pool.borrow_mut().lent -= 1);
                Self(Memory::Own(vec![0; BATCH_LEN].into_boxed_slice()))
            },
            |map| Self(Memory::Lent(map)),
        )
    }

    /// A copy of `bytes` that takes no more room than they do.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(Memory::Own(bytes.into()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Memory::Lent(map) = std::mem::replace(&mut self.0, Memory::Own(Box::default())) else { return };
        let _ = POOL.try_with(|pool| {
            let pool = &mut *pool.borrow_mut();
            pool.lent -= 1;
            if pool.free.len() < MAX_FREE {
                pool.free.push(map);
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
        POOL.with(|pool| pool.borrow().free.len())
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
    fn buffers_that_are_used_again_stay_and_the_others_go() {
        const USED: usize = 10;
        let lend = |count| drop((0..count).map(|_| Buffer::take()).collect::<Vec<_>>());
        lend(MAX_FREE + 5);
        for _ in 0..3 {
            lend(USED);
            release_unused();
        }
        assert_eq!(free(), USED);
        release_unused();
        assert_eq!(free(), MAX_UNUSED);
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
        // Until here they were needed.
        release_unused();
        release_unused();
        assert_eq!(free(), MAX_UNUSED);
        let left = resident().saturating_sub(before);
        assert!(left < 4 << 20, "{left} bytes are left of {}", BURST * BATCH_LEN);
        drop(pins);
    }
}
