//! Calls of the C library that no safe crate offers. The only crate of the workspace that may contain `unsafe`.

mod binary_pages;

pub use binary_pages::release_binary_pages;

/// Returns the free memory of the allocator to the system, from all of its heaps, and says whether there was any.
///
/// glibc returns memory only from the end of each heap by itself, so that one block in use near the end keeps all that is free
/// below it. The call takes the lock of each heap in turn and looks at each free block, so threads that allocate wait for it:
/// it belongs on a thread that serves no connection, and not on a short interval. With another C library it does nothing.
pub fn release_free_memory() -> bool {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it has no precondition, may be called on any thread at any time, and changes no block that is in use.
        #[expect(unsafe_code, reason = "no safe crate offers it")]
        let released = unsafe { libc::malloc_trim(0) };
        released == 1
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use std::fs;
    use std::hint::black_box;

    use super::*;

    const BLOCK: usize = 4000;
    const BLOCKS: usize = 16_000;

    fn resident() -> usize {
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn free_memory_below_a_block_in_use_goes_back() {
        let mut blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| black_box(vec![1; BLOCK])).collect();
        let held = resident();
        // At the end of the heap.
        let last = blocks.pop().unwrap();
        drop(blocks);
        let kept = resident();
        assert!(kept > held - 10 * BLOCK * BLOCKS / 100, "glibc returned it by itself: {held} and then {kept}");
        assert!(release_free_memory());
        let released = kept - resident().min(kept);
        assert!(released > BLOCK * BLOCKS * 9 / 10, "{released} of {} bytes", BLOCK * BLOCKS);
        assert_eq!(last, [1; BLOCK]);
        assert!(!release_free_memory() || resident() < kept, "nothing more to return");
    }
}
