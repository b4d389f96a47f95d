//! The commands that stand beside the proxy in a container, as real processes: what they wait for, what they pass on, and
//! how they end.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::process::{Child, Command, Stdio};

use support::{BIN, eventually};

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Waits until it listens to a signal: before, that would end it.
    fn listening(self, signal: u32) -> Self {
        eventually("it listens to signals", || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
            (caught & (1 << (signal - 1)) != 0).then_some(())
        });
        self
    }

    fn ended(&mut self) -> Option<i32> {
        eventually("it ends", || self.0.try_wait().unwrap()).code()
    }

    fn children(&self) -> String {
        let id = self.0.id();
        fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

mod hold {
    use super::*;

    #[test]
    fn it_ends_with_0_when_it_is_told_to() {
        for name in ["TERM", "INT"] {
            let mut hold = Running::start(Command::new(BIN).arg("hold")).listening(15).listening(2);
            signal(&hold.0, name);
            assert_eq!(hold.ended(), Some(0), "{name}");
        }
    }

    /// What the shell started is inherited by what takes its place, as PID 1 inherits orphans.
    #[test]
    fn it_reaps_what_others_left_behind() {
        let script = "true & sleep 0.3 & exec \"$0\" hold";
        let mut hold = Running::start(Command::new("sh").args(["-c", script, BIN])).listening(15);
        eventually("both children are reaped", || hold.children().is_empty().then_some(()));
        signal(&hold.0, "TERM");
        assert_eq!(hold.ended(), Some(0));
    }
}
