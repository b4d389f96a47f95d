//! Giving up every capability for good.
//!
//! For a process that needs one privilege for one act at its start. What is left is read back from the kernel: an administrator can read
//! the same lines in `/proc/PID/status`.

use std::fmt;
use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Gid, Uid, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use thiserror::Error;

use crate::calls;

/// Why not everything was given up.
#[derive(Debug, Error)]
pub enum DropError {
    /// A capability is missing by which others are given up.
    #[error("cannot give up {what}: {capability} is missing; start the container with cap_add: [{capability}]")]
    NotPermitted {
        /// What stays.
        what: &'static str,
        /// What it takes.
        capability: &'static str,
    },
    /// The kernel's refusal of a step.
    #[error("cannot give up {what}: {source}")]
    Refused {
        /// What stays.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The filter of system calls.
    #[error("cannot block system calls: {0}")]
    Calls(String),
    /// The steps were accepted, and something is left.
    #[error("privileges are left after giving them up: {0}")]
    Left(Privileges),
}

/// What a process may do, as the lines of the same names in `/proc/self/status` say it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Privileges {
    /// `Uid`, the real one.
    pub user: u32,
    /// `CapInh`, `CapPrm`, `CapEff`, `CapBnd`, `CapAmb`, combined.
    pub capabilities: u64,
    /// `NoNewPrivs`: executing a program cannot give any back.
    pub no_new_privs: bool,
    /// `Seccomp` is 2: a filter of system calls is in force.
    pub filtered: bool,
}

impl Privileges {
    /// Those of this process.
    ///
    /// # Errors
    /// If the kernel does not list them.
    pub fn read() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/self/status")?)
            .ok_or_else(|| io::Error::other("/proc/self/status has not the form that is known"))
    }

    fn parse(status: &str) -> Option<Self> {
        let first = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_ascii_whitespace().next()
        };
        let mut capabilities = 0;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            capabilities |= u64::from_str_radix(first(set)?, 16).ok()?;
        }
        Some(Self {
            user: first("Uid")?.parse().ok()?,
            capabilities,
            no_new_privs: first("NoNewPrivs")? == "1",
            filtered: first("Seccomp")? == "2",
        })
    }

    fn are_none(&self) -> bool {
        self.user != 0 && self.capabilities == 0 && self.no_new_privs && self.filtered
    }
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, capabilities, no_new_privs, filtered } = self;
        let (no_new_privs, filtered) = (u8::from(*no_new_privs), u8::from(*filtered) * 2);
        write!(f, "user {user}, capabilities {capabilities:x}, NoNewPrivs {no_new_privs}, Seccomp {filtered}")
    }
}

/// Becomes `user` and its group, without capabilities in any set, without a way to get them again, and with system calls blocked
/// ([`calls::deny`]). Returns what is left, as the kernel says.
///
/// Bounding and ambient sets belong to threads, so it must be called before a second one starts.
///
/// # Errors
/// [`DropError`]. Some is given up then, and the process should end.
pub fn drop_all(user: u32) -> Result<Privileges, DropError> {
    let step = |what: &'static str, capability: &'static str, done: Result<(), Errno>| {
        done.map_err(|error| match error {
            Errno::PERM => DropError::NotPermitted { what, capability },
            error => DropError::Refused { what, source: error.into() },
        })
    };
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // Beyond the last one that the kernel knows it is an error.
        if capability_is_in_bounding_set(capability) == Ok(true) {
            step("the bounding set", "SETPCAP", remove_capability_from_bounding_set(capability))?;
        }
    }
    if getuid().as_raw() != user {
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
        step("the groups of root", "SETGID", set_thread_groups(&[]))?;
        step("the group of root", "SETGID", set_thread_res_gid(gid, gid, gid))?;
        step("the user root", "SETUID", set_thread_res_uid(uid, uid, uid))?;
    }
    let none = CapabilitySet::empty();
    step("ambient capabilities", "none", clear_ambient_capability_set())?;
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    step("capabilities", "none", set_capabilities(None, sets))?;
    step("new privileges", "none", set_no_new_privs(true))?;
    calls::deny().map_err(DropError::Calls)?;
    let left = Privileges::read()
        .map_err(|source| DropError::Refused { what: "privileges, or see what is left of them", source })?;
    if left.are_none() { Ok(left) } else { Err(DropError::Left(left)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\thold\nUid:\t1337\t1337\t1337\t1337\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
                          CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n\
                          Seccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn one_bit_in_one_set_is_a_privilege() {
        assert!(Privileges::parse(STATUS).unwrap().are_none());
        for (line, other) in [
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000001000"),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000000001"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t8000000000000000"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
            ("Uid:\t1337", "Uid:\t0"),
        ] {
            let status = STATUS.replace(line, other);
            assert_ne!(status, STATUS, "{line}");
            assert!(!Privileges::parse(&status).unwrap().are_none(), "{other}");
        }
        assert_eq!(Privileges::parse(&STATUS.replace("CapBnd", "CapXyz")), None);
    }

    #[test]
    fn the_privileges_of_this_process_are_read() {
        assert_eq!(Privileges::read().unwrap().user, getuid().as_raw());
    }
}
