//! Pages of the binary that only its start has needed.

use std::ops::Range;
use std::{fs, io};

/// Takes the pages of this program's file out of the process's resident memory, and returns how many bytes of address space that are.
///
/// Linux maps 64 KiB of a file or more around each page that is touched, so that soon after the start most of the binary counts as
/// resident, although few of it is used again. What is needed later is mapped again from the page cache, by a minor fault each.
/// The kernel can give the rest to others: no process has it mapped.
///
/// # Errors
///
/// `/proc/self` cannot be read, or the kernel refuses: memory that is locked (`mlockall`) stays.
pub fn release_binary_pages() -> io::Result<usize> {
    let binary = fs::read_link("/proc/self/exe")?;
    let mappings = fs::read_to_string("/proc/self/smaps")?;
    let mut released = 0;
    for pages in file_pages(&mappings, &binary.to_string_lossy()) {
        release(&pages)?;
        released += pages.len();
    }
    Ok(released)
}

fn release(pages: &Range<usize>) -> io::Result<()> {
    let address = std::ptr::without_provenance_mut::<libc::c_void>(pages.start);
    // SAFETY: the range is a mapping of the binary that cannot be written and has no private page (`file_pages`), so each of its
    // pages equals the file's, from which it is mapped again when it is touched. No memory of Rust's or of the allocator's is in it.
    #[expect(unsafe_code, reason = "no safe crate offers it")]
    let result = unsafe { libc::madvise(address, pages.len(), libc::MADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The mappings of the file `binary` in the text of `/proc/self/smaps` (proc(5)) that hold nothing but the file's own content: they cannot
/// be written, and no page of them is private. Data that was relocated at the start cannot be written either, but is private.
fn file_pages(smaps: &str, binary: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some((range, of_binary)) = mapping(line, binary) {
            candidate = of_binary.then_some(range);
        } else if line.split_whitespace().eq(["Anonymous:", "0", "kB"]) {
            found.extend(candidate.take());
        }
    }
    found
}

/// The first line of a mapping: `ADDRESS-ADDRESS PERMISSIONS OFFSET DEVICE INODE PATH`. Whether it is one of `binary` that cannot be written.
fn mapping(line: &str, binary: &str) -> Option<(Range<usize>, bool)> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let permissions = fields.next()?;
    let path = fields.nth(3)?.trim_start();
    Some((range, matches!(permissions, "r-xp" | "r--p") && path == binary))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d000000000-55d000010000 r--p 00000000 fe:00 1234                       /opt/a b/portcullis
Rss:                  64 kB
Anonymous:             0 kB
55d000010000-55d000020000 r-xp 00010000 fe:00 1234                       /opt/a b/portcullis
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
55d000020000-55d000030000 r--p 00020000 fe:00 1234                       /opt/a b/portcullis
Anonymous:            40 kB
55d000030000-55d000040000 rw-p 00030000 fe:00 1234                       /opt/a b/portcullis
Anonymous:             0 kB
55d000040000-55d000050000 r-xs 00030000 fe:00 1234                       /opt/a b/portcullis
Anonymous:             0 kB
7f0000000000-7f0000010000 r-xp 00000000 fe:00 99                         /lib/libc.so.6
Anonymous:             0 kB
7f0000020000-7f0000030000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
";

    #[test]
    fn only_pages_that_equal_the_file_are_released() {
        let found = file_pages(SMAPS, "/opt/a b/portcullis");
        assert_eq!(found, [0x55d0_0000_0000..0x55d0_0001_0000, 0x55d0_0001_0000..0x55d0_0002_0000]);
        assert!(file_pages(SMAPS, "/opt/a").is_empty());
        assert!(file_pages("garbage\nAnonymous: 0 kB\n1-2\n", "/opt/a").is_empty());
    }

    fn resident_of_files() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn the_resident_size_falls_and_the_program_goes_on() {
        let before = resident_of_files();
        let released = release_binary_pages().unwrap();
        let after = resident_of_files();
        assert!(released > 100_000, "the code of a test binary is larger: {released}");
        assert!(after < before, "{before} and then {after} KiB");
        // Code and constants that were not touched since are mapped again.
        assert_eq!(format!("{:?}", "é".to_owned().into_bytes()), "[195, 169]");
    }
}
