//! Keeps keys out of core dumps.
//!
//! The memory of a proxy holds its private key. A process that is not dumpable writes no core file, and only a
//! process with `CAP_SYS_PTRACE` can attach to it or read its memory, even under the same user. Children inherit the
//! limit, but not the attribute.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes this process leave no core dump. To be called before it reads a key.
///
/// The files in `/proc/self` belong to root then; a process may still read those of its own that it needs (its memory,
/// times and descriptors, for metrics).
///
/// # Errors
/// If the kernel refuses, which it is not known to do.
pub fn forbid() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
