//! Exit codes: other programs branch on them, so each has one meaning and they stay stable.
//!
//! The numbers are those of `sysexits.h` where it has one.

use std::io;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// Success.
    Ok,
    /// It failed, or the answer is no.
    Failure,
    /// The proxy had to cut connections at the end of the drain.
    DrainForced,
    /// The command line is wrong.
    Usage,
    /// An input file is wrong or cannot be read: policy, certificate, compose file; or a SPIFFE ID is wrong.
    BadInput,
    /// The proxy cannot be reached.
    Unreachable,
    /// The operating system denies permission.
    NoPermission,
    /// The proxy's own configuration is wrong or cannot be read.
    BadConfig,
    /// `analyze` or `audit` found something.
    Found,
    /// A client would be refused under STRICT.
    NotReady,
    /// Too little was observed for an answer.
    TooLittleObserved,
    /// A certificate has expired, or is about to.
    Expired,
    /// The exceptions are not those of the baseline.
    Drift,
    /// A guarded change was taken back.
    TakenBack,
    /// A guarded change could not be taken back, or somebody else has changed its files.
    NotTakenBack,
    /// The exit code of a program that was run, in the convention of shells.
    Program(u8),
}

impl Exit {
    const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::DrainForced => 3,
            Self::Usage => 64,
            Self::BadInput => 65,
            Self::Unreachable => 69,
            Self::NoPermission => 77,
            Self::BadConfig => 78,
            Self::Found => 79,
            Self::NotReady => 80,
            Self::TooLittleObserved => 81,
            Self::Expired => 82,
            Self::Drift => 83,
            Self::TakenBack => 84,
            Self::NotTakenBack => 85,
            Self::Program(code) => code,
        }
    }

    /// Ended by a signal, in the convention of shells.
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
  0   success
  1   failure; demo --check: a cell differs from its expected outcome; can: denied; auth: a port is not OK; policy diff, diff: the sets differ;
      replay: somebody loses access;
      verify: not all is as expected; certs show: the chain does not verify; check: something is wrong; healthcheck, wait, run: not ready
  3   proxy: connections were cut at the end of the drain
  64  wrong usage of the command line
  65  bad input: policy, certificate, compose file or SPIFFE ID; or an input file that is missing
  69  the proxy cannot be reached; readiness, replay, migrate, check: one of them
  77  permission denied
  78  bad configuration of the proxy, or none that can be read
  79  analyze, audit: something was found
  80  readiness, migrate: a client would be refused under STRICT
  81  readiness, replay, migrate: too little was observed; check, intercept verify: something could not be checked
  82  a certificate has expired, or is about to
  83  audit: the exceptions are not those of the baseline
  84  apply, delete: a guarded change was taken back
  85  apply, delete: the guard ended and did not take the change back: somebody else changed the files, or they cannot be written
run exits with the code of the program; 126 if it cannot be executed, 127 if it is not found.
wait and run: 128 plus the number of the signal that ended them, or the program.";

/// The result of a command: an exit code, or the reason why there is no answer.
pub(crate) type Outcome = Result<Exit, Failure>;

/// Why a command failed: what to print on standard error, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Usage, error)
    }

    pub(crate) fn bad_input(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::BadInput, error)
    }

    pub(crate) fn message(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, error: anyhow::Error::msg(message.into()) }
    }
}

/// Anything without a code of its own is a plain failure, except that a denied permission has its own code.
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
