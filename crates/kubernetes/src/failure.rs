//! Why a list or watch has failed, in the words of the status; and how long to wait before the next attempt.

use std::time::Duration;

use kube::runtime::watcher;

/// The first delay is between half of this and all of it.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// The longest delay.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// How often the delay may have doubled before a server that answers and is then cut off: its next one is 3.2 s at most.
const DOUBLED_BEFORE_CUT: u32 = 4;
/// The longest delay that a server may ask for.
const MAX_ASKED: Duration = Duration::from_secs(120);

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FailureReason {
    /// The token was refused (401).
    Unauthorized,
    /// The service account may not list or watch this (403).
    Forbidden,
    /// The server asks to be asked less often (429).
    Throttled,
    /// It does not answer, or not what was expected.
    Unreachable,
}

impl FailureReason {
    /// The word in logs and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Throttled => "throttled",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A failed attempt.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: FailureReason,
    pub(crate) message: String,
    /// The server asks for this pause.
    pub(crate) pause: Option<Duration>,
    /// The server did not say so: the connection broke.
    pub(crate) is_cut: bool,
}

/// What to do about an error of a request.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Failed(Failure),
    /// The server does not know the kind (404).
    NotFound,
    /// What the server remembers of changes is too short (410): list again.
    Expired,
}

impl Failure {
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self { reason: FailureReason::Unreachable, message: message.into(), pause: None, is_cut: false }
    }

    fn cut(message: String) -> Self {
        Self { is_cut: true, ..Self::unreachable(message) }
    }
}

pub(crate) fn of_watch(error: &watcher::Error) -> Verdict {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of_request(error),
        watcher::Error::WatchError(status) => of_status(status),
        watcher::Error::NoResourceVersion => Verdict::Failed(Failure::unreachable(error.to_string())),
    }
}

pub(crate) fn of_request(error: &kube::Error) -> Verdict {
    match error {
        kube::Error::Api(status) => of_status(status),
        kube::Error::Service(cause) => Verdict::Failed(Failure::cut(chain(&**cause))),
        kube::Error::SerdeError(_) => Verdict::Failed(Failure::unreachable("the answer is not what was expected")),
        other => Verdict::Failed(Failure::cut(chain(other))),
    }
}

fn of_status(status: &kube::core::Status) -> Verdict {
    let reason = match status.code {
        404 => return Verdict::NotFound,
        410 => return Verdict::Expired,
        401 => FailureReason::Unauthorized,
        403 => FailureReason::Forbidden,
        429 => FailureReason::Throttled,
        _ => FailureReason::Unreachable,
    };
    let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    let pause = (asked > 0).then(|| Duration::from_secs(asked.into()).min(MAX_ASKED));
    Verdict::Failed(Failure { reason, message: format!("{} ({})", status.message, status.code), pause, is_cut: false })
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Delays that double, each with jitter between half of it and all of it: sidecars that failed together do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let most = FIRST_DELAY.saturating_mul(1 << self.0.min(16)).min(MAX_DELAY);
        self.0 = self.0.saturating_add(1);
        most.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// The server is there, and the way to it is bad: it is asked again before long, whatever was before.
    pub(crate) fn was_cut(&mut self) {
        self.0 = self.0.min(DOUBLED_BEFORE_CUT);
    }

    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_a_limit_and_begin_again() {
        let mut backoff = Backoff::default();
        for n in 0..40_u32 {
            let most = FIRST_DELAY.saturating_mul(1 << n.min(16)).min(MAX_DELAY);
            let delay = backoff.next();
            assert!(delay <= most && delay >= most / 2, "{n}: {delay:?}");
        }
        backoff.was_cut();
        assert!(backoff.next() <= Duration::from_millis(3_200));
        backoff.reset();
        assert!(backoff.next() <= FIRST_DELAY);
        backoff.was_cut();
        assert!(backoff.next() <= FIRST_DELAY * 2, "a cut makes no delay longer than it is");
    }

    #[test]
    fn each_answer_has_its_reason() {
        let verdict = |code: u16| of_status(&kube::core::Status { code, ..Default::default() });
        let reason = |code| match verdict(code) {
            Verdict::Failed(failure) => Some(failure.reason),
            Verdict::NotFound | Verdict::Expired => None,
        };
        assert!(matches!(verdict(404), Verdict::NotFound) && matches!(verdict(410), Verdict::Expired));
        assert_eq!(reason(401), Some(FailureReason::Unauthorized));
        assert_eq!(reason(403), Some(FailureReason::Forbidden));
        assert_eq!(reason(429), Some(FailureReason::Throttled));
        assert_eq!([reason(500), reason(0), reason(504)], [Some(FailureReason::Unreachable); 3]);
    }
}
