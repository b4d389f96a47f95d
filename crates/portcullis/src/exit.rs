//! Exit codes: other programs branch on them, so each has one meaning and they stay stable.
//!
//! The numbers are those of `sysexits.h` where it has one. `proxy` adds 3, "drained by force".

use std::io;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// As asked.
    Ok,
    /// It failed, or the answer is no.
    Failure,
    /// The command line is wrong.
    Usage,
    /// A policy, certificate or SPIFFE ID is wrong.
    BadInput,
    /// The proxy cannot be reached.
    Unreachable,
    /// The operating system does not let us.
    NoPermission,
    /// The proxy's own configuration is wrong.
    BadConfig,
    /// As a shell has it for a program that it ran: its own code, or how it ended.
    Program(u8),
}

impl Exit {
    const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 64,
            Self::BadInput => 65,
            Self::Unreachable => 69,
            Self::NoPermission => 77,
            Self::BadConfig => 78,
            Self::Program(code) => code,
        }
    }

    /// Ended by a signal, as shells say it.
    pub(crate) fn killed_by(signal: i32) -> Self {
        Self::Program(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// The table, as the long help shows it.
pub(crate) const TABLE: &str = "\
Exit codes:
  0   as asked
  1   failure; demo --check: a cell is not as it must be; healthcheck, wait, run: not ready
  3   proxy: connections had to be cut at the end of the drain
  64  wrong usage of the command line
  65  bad input: policy, certificate or SPIFFE ID
  69  the proxy cannot be reached
  77  permission denied
  78  bad configuration of the proxy
run ends with the code of what it ran; 126 if that cannot be executed, 127 if it is not there.
wait and run: 128 and the number of the signal that ended them, or what run ran.";

/// Why a command did not do what was asked: what to say on standard error, and the code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    pub(crate) fn message(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, error: anyhow::Error::msg(message.into()) }
    }
}

/// Anything without a code of its own is a plain failure, except that a refused permission is told apart.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let denied = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|error| error.kind() == io::ErrorKind::PermissionDenied);
        Self { exit: if denied { Exit::NoPermission } else { Exit::Failure }, error }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::from(anyhow::Error::from(error))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_refused_permission_is_found_below_its_context() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = Err::<(), _>(denied).context("cannot write key.pem").unwrap_err();
        assert_eq!(Failure::from(error).exit, Exit::NoPermission);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::NotFound)).exit, Exit::Failure);
    }
}
