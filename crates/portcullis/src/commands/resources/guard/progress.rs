//! How far a guarded change is, and when it is over: a pure function of what the sidecars said and of the time.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long a sidecar may say that it refuses the files. While several files are put in their places, it may see some of them only.
const REFUSAL_GRACE: Duration = Duration::from_secs(3);

/// What ends the watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long the change is watched, once every sidecar has it in force.
    pub(super) guard: Duration,
    /// How many connections may be refused.
    pub(super) max_denied: u64,
    /// How long a sidecar may be without the change.
    pub(super) load: Duration,
    /// How long a sidecar may give no answer.
    pub(super) silence: Duration,
    /// A sidecar without an answer does not end the watch.
    pub(super) keep_unanswered: bool,
}

/// What one sidecar said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// It has the policies of the folder in force, or reads no folder.
    InForce,
    /// It has others in force.
    Behind,
    /// It says what is wrong with them.
    Refuses(String),
    /// Nothing, and why.
    Silent(String),
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Ask again.
    GoOn,
    /// The time is over, and nothing spoke against the change.
    Keep,
    /// Take it back.
    TakeBack(Why),
}

/// Why a change is taken back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// So many connections were refused.
    Denied(u64),
    /// A sidecar, by its place in the list, was not as it should be for too long.
    Trouble { sidecar: usize, state: State, lasted: Duration },
}

/// How far it is.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    limits: Limits,
    /// When every sidecar had the change in force for the first time.
    began: Option<Duration>,
    /// Sidecars that are not as they should be, since when.
    trouble: BTreeMap<usize, (State, Duration)>,
}

impl Progress {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, began: None, trouble: BTreeMap::new() }
    }

    /// One round of answers, in the order of the sidecars, and how many connections the change has refused until now.
    pub(super) fn round(&mut self, now: Duration, states: Vec<State>, denied: u64) -> Verdict {
        if denied > self.limits.max_denied {
            return Verdict::TakeBack(Why::Denied(denied));
        }
        for (sidecar, state) in states.into_iter().enumerate() {
            if state == State::InForce {
                self.trouble.remove(&sidecar);
            } else {
                // Another trouble is no recovery: the time goes on.
                let since = self.trouble.get(&sidecar).map_or(now, |(_, since)| *since);
                self.trouble.insert(sidecar, (state, since));
            }
        }
        for (sidecar, (state, since)) in &self.trouble {
            let lasted = now.saturating_sub(*since);
            if self.patience(state).is_some_and(|patience| lasted >= patience) {
                return Verdict::TakeBack(Why::Trouble { sidecar: *sidecar, state: state.clone(), lasted });
            }
        }
        if self.trouble.values().any(|(state, _)| self.patience(state).is_some()) {
            return Verdict::GoOn;
        }
        let began = *self.began.get_or_insert(now);
        if now.saturating_sub(began) >= self.limits.guard { Verdict::Keep } else { Verdict::GoOn }
    }

    /// How long this state may last; `None` for ever.
    const fn patience(&self, state: &State) -> Option<Duration> {
        match state {
            State::Silent(_) if self.limits.keep_unanswered => None,
            State::Silent(_) => Some(self.limits.silence),
            State::InForce | State::Behind => Some(self.limits.load),
            State::Refuses(_) => Some(REFUSAL_GRACE),
        }
    }

    /// Whether the watch has begun.
    pub(super) const fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    /// How much of the time is left.
    pub(super) fn left(&self, now: Duration) -> Duration {
        let watched = self.began.map_or(Duration::ZERO, |began| now.saturating_sub(began));
        self.limits.guard.saturating_sub(watched)
    }

    /// The sidecars that are not as they should be.
    pub(super) fn trouble(&self) -> impl Iterator<Item = (usize, &State)> {
        self.trouble.iter().map(|(sidecar, (state, _))| (*sidecar, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        guard: Duration::from_secs(600),
        max_denied: 0,
        load: Duration::from_secs(60),
        silence: Duration::from_secs(30),
        keep_unanswered: false,
    };

    fn silent() -> State {
        State::Silent("refused".to_owned())
    }

    /// Rounds, a second apart, until the verdict is one.
    fn run(limits: Limits, state: impl Fn(u64) -> Vec<State>) -> (u64, Verdict) {
        let mut progress = Progress::new(limits);
        for second in 0..10_000 {
            match progress.round(Duration::from_secs(second), state(second), 0) {
                Verdict::GoOn => {}
                verdict => return (second, verdict),
            }
        }
        (u64::MAX, Verdict::GoOn)
    }

    #[test]
    fn the_time_counts_from_when_every_sidecar_has_the_change() {
        let late = |second| vec![State::InForce, if second < 20 { State::Behind } else { State::InForce }];
        assert_eq!(run(LIMITS, late), (620, Verdict::Keep));
    }

    #[test]
    fn one_refused_connection_too_many_takes_it_back_at_once() {
        let limits = Limits { max_denied: 2, ..LIMITS };
        let mut progress = Progress::new(limits);
        assert_eq!(progress.round(Duration::ZERO, vec![State::Behind], 2), Verdict::GoOn);
        let took_back = Verdict::TakeBack(Why::Denied(3));
        assert_eq!(progress.round(Duration::ZERO, vec![State::Behind], 3), took_back, "also before all have it");
    }

    #[test]
    fn a_sidecar_that_is_not_as_it_should_be_takes_it_back_after_its_time() {
        for (state, expected) in
            [(silent(), 30), (State::Behind, 60), (State::Refuses("a.yaml:1".to_owned()), REFUSAL_GRACE.as_secs())]
        {
            let (second, verdict) = run(LIMITS, |_| vec![State::InForce, state.clone()]);
            assert_eq!(second, expected, "{state:?}");
            let lasted = Duration::from_secs(expected);
            assert_eq!(verdict, Verdict::TakeBack(Why::Trouble { sidecar: 1, state, lasted }));
            // And in the middle of the watch.
            let (second, _) = run(LIMITS, |second| vec![if second < 100 { State::InForce } else { silent() }]);
            assert_eq!(second, 130);
        }
    }

    #[test]
    fn silence_that_changes_its_words_is_silence_all_the_same() {
        let changing = |second: u64| {
            vec![if second.is_multiple_of(2) { State::Behind } else { State::Silent(second.to_string()) }]
        };
        assert!(matches!(run(LIMITS, changing), (31, Verdict::TakeBack(_))));
    }

    #[test]
    fn the_end_waits_for_a_sidecar_that_is_silent_then() {
        let returns = |second| vec![if (590..615).contains(&second) { silent() } else { State::InForce }];
        assert_eq!(run(LIMITS, returns), (615, Verdict::Keep), "what it refused meanwhile is read first");
    }

    #[test]
    fn only_the_flag_keeps_a_change_with_a_silent_sidecar() {
        let limits = Limits { keep_unanswered: true, ..LIMITS };
        assert_eq!(run(limits, |_| vec![State::InForce, silent()]), (600, Verdict::Keep));
        assert!(matches!(run(limits, |_| vec![State::Behind, silent()]), (60, Verdict::TakeBack(_))));
    }
}
