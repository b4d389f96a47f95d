//! Entering the sandbox: a daemon drops the privileges that it no longer needs before its first thread starts.
//!
//! Landlock binds a thread and those that it starts, so this happens on the main thread, before watchers and workers.

use std::fs;
use std::path::Path;

use portcullis_sandbox::access::{self, Access, Outcome};
use portcullis_sandbox::calls;

/// Process metrics. Not `/proc/self` alone: the kernel forgets that folder when it needs memory, and a new one has no
/// rule. Foreign processes stay closed: Landlock keeps us from looking into them.
pub(crate) const PROC: &str = "/proc";

/// The enforced restrictions, for the log.
pub(crate) struct Sandbox {
    landlock: String,
    seccomp: String,
    whole: bool,
}

/// Enters it. `None` and `false` leave that half off.
pub(crate) fn enter(access: Option<&Access>, seccomp: bool) -> Sandbox {
    let alone = fs::read_dir("/proc/self/task").map_or(true, |threads| threads.count() == 1);
    let landlock = access.map(access::restrict);
    let seccomp = seccomp.then(calls::deny);
    let known = landlock.as_ref().is_none_or(Outcome::is_whole) && seccomp.as_ref().is_none_or(Result::is_ok);
    let whole = known && (alone || landlock.is_none());
    // A mistake in the order of the start, which nothing else would show.
    let outside = if alone { "" } else { ", but threads run OUTSIDE of it" };
    let landlock = landlock.map_or_else(|| "switched off".to_owned(), |outcome| format!("{outcome}{outside}"));
    let seccomp = match seccomp {
        None => "switched off".to_owned(),
        Some(Ok(())) => "on".to_owned(),
        Some(Err(error)) => format!("NOT on ({error})"),
    };
    Sandbox { landlock, seccomp, whole }
}

impl Sandbox {
    /// Logs the enforced restrictions. Not done on entering: the log has a thread, which must start inside the sandbox.
    pub(crate) fn log(&self) {
        let Self { landlock, seccomp, whole } = self;
        if *whole {
            tracing::info!(landlock, seccomp, "sandbox");
        } else {
            tracing::warn!(landlock, seccomp, "sandbox: this system does not support all of it");
        }
    }
}

/// Two levels below the root, or more. The first level (`/etc`, `/tmp`, `/home`) holds files of others.
pub(crate) fn is_deep(folder: &Path) -> bool {
    folder.components().count() > 2
}
