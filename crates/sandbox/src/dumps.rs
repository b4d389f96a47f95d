//! No keys in core dumps.
//!
//! The memory of a proxy holds its private key. A process that is not dumpable writes no core file, and nobody without
//! `CAP_SYS_PTRACE` can attach to it or read its memory, not even under its own user. The limit is for whoever looks at
//! limits, and stays where the attribute would not: it is inherited.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes this process leave no core dump. To be called before it reads a key.
///
/// The files in `/proc/self` belong to root then; a process may still read those of its own that it needs (its memory,
/// times and descriptors, for metrics).
///
/// # Errors
/// If the kernel refuses, which it has no reason to.
pub fn forbid() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
