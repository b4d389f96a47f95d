//! How far a guarded change is, and when it is over: a pure function of what the sidecars said and of the time.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long a sidecar may say that it rejects the files. While several files are put in their places, it may see some of them only.
const REJECTION_GRACE: Duration = Duration::from_secs(3);

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

/// Whether one sidecar has the policies of the folder, as it says itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum SyncState {
    /// It has the policies of the folder in force, or reads no folder.
    Synced,
    /// It has others in force.
    Stale,
    /// It says what is wrong with them.
    Rejects(String),
    /// It did not answer, and why.
    Unreachable(String),
}

/// What the guard does next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum GuardAction {
    /// Ask again.
    Continue,
    /// The time is over, and nothing spoke against the change.
    Keep,
    /// Take it back.
    TakeBack(TakeBackCause),
}

/// TakeBackCause a change is taken back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TakeBackCause {
    /// So many connections were refused.
    Denied(u64),
    /// A sidecar, by its place in the list, was not as it should be for too long.
    OutOfSync { sidecar: usize, state: SyncState, lasted: Duration },
}

/// How far it is.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    limits: Limits,
    /// When every sidecar had the change in force for the first time.
    began: Option<Duration>,
    /// Sidecars that are not [`SyncState::Synced`], and since when.
    out_of_sync: BTreeMap<usize, (SyncState, Duration)>,
}

impl Progress {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, began: None, out_of_sync: BTreeMap::new() }
    }

    /// One round of answers, in the order of the sidecars, and how many connections the change has refused until now.
    pub(super) fn round(&mut self, now: Duration, states: Vec<SyncState>, denied: u64) -> GuardAction {
        if denied > self.limits.max_denied {
            return GuardAction::TakeBack(TakeBackCause::Denied(denied));
        }
        for (sidecar, state) in states.into_iter().enumerate() {
            if state == SyncState::Synced {
                self.out_of_sync.remove(&sidecar);
            } else {
                // Another state that is not Synced is no recovery: the time goes on.
                let since = self.out_of_sync.get(&sidecar).map_or(now, |(_, since)| *since);
                self.out_of_sync.insert(sidecar, (state, since));
            }
        }
        for (sidecar, (state, since)) in &self.out_of_sync {
            let lasted = now.saturating_sub(*since);
            if self.grace(state).is_some_and(|grace| lasted >= grace) {
                return GuardAction::TakeBack(TakeBackCause::OutOfSync {
                    sidecar: *sidecar,
                    state: state.clone(),
                    lasted,
                });
            }
        }
        if self.out_of_sync.values().any(|(state, _)| self.grace(state).is_some()) {
            return GuardAction::Continue;
        }
        let began = *self.began.get_or_insert(now);
        if now.saturating_sub(began) >= self.limits.guard { GuardAction::Keep } else { GuardAction::Continue }
    }

    /// How long this state may last; `None` for ever.
    const fn grace(&self, state: &SyncState) -> Option<Duration> {
        match state {
            SyncState::Unreachable(_) if self.limits.keep_unanswered => None,
            SyncState::Unreachable(_) => Some(self.limits.silence),
            SyncState::Synced | SyncState::Stale => Some(self.limits.load),
            SyncState::Rejects(_) => Some(REJECTION_GRACE),
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

    /// The sidecars that are not [`SyncState::Synced`].
    pub(super) fn out_of_sync(&self) -> impl Iterator<Item = (usize, &SyncState)> {
        self.out_of_sync.iter().map(|(sidecar, (state, _))| (*sidecar, state))
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

    fn unreachable() -> SyncState {
        SyncState::Unreachable("refused".to_owned())
    }

    /// Rounds, a second apart, until the action is one.
    fn run(limits: Limits, state: impl Fn(u64) -> Vec<SyncState>) -> (u64, GuardAction) {
        let mut progress = Progress::new(limits);
        for second in 0..10_000 {
            match progress.round(Duration::from_secs(second), state(second), 0) {
                GuardAction::Continue => {}
                action => return (second, action),
            }
        }
        (u64::MAX, GuardAction::Continue)
    }

    #[test]
    fn the_time_counts_from_when_every_sidecar_has_the_change() {
        let late = |second| vec![SyncState::Synced, if second < 20 { SyncState::Stale } else { SyncState::Synced }];
        assert_eq!(run(LIMITS, late), (620, GuardAction::Keep));
    }

    #[test]
    fn one_refused_connection_too_many_takes_it_back_at_once() {
        let limits = Limits { max_denied: 2, ..LIMITS };
        let mut progress = Progress::new(limits);
        assert_eq!(progress.round(Duration::ZERO, vec![SyncState::Stale], 2), GuardAction::Continue);
        let took_back = GuardAction::TakeBack(TakeBackCause::Denied(3));
        assert_eq!(progress.round(Duration::ZERO, vec![SyncState::Stale], 3), took_back, "also before all have it");
    }

    #[test]
    fn a_sidecar_that_is_not_as_it_should_be_takes_it_back_after_its_time() {
        for (state, expected) in [
            (unreachable(), 30),
            (SyncState::Stale, 60),
            (SyncState::Rejects("a.yaml:1".to_owned()), REJECTION_GRACE.as_secs()),
        ] {
            let (second, action) = run(LIMITS, |_| vec![SyncState::Synced, state.clone()]);
            assert_eq!(second, expected, "{state:?}");
            let lasted = Duration::from_secs(expected);
            assert_eq!(action, GuardAction::TakeBack(TakeBackCause::OutOfSync { sidecar: 1, state, lasted }));
            // And in the middle of the watch.
            let (second, _) = run(LIMITS, |second| vec![if second < 100 { SyncState::Synced } else { unreachable() }]);
            assert_eq!(second, 130);
        }
    }

    #[test]
    fn silence_that_changes_its_words_is_silence_all_the_same() {
        let changing = |second: u64| {
            vec![if second.is_multiple_of(2) { SyncState::Stale } else { SyncState::Unreachable(second.to_string()) }]
        };
        assert!(matches!(run(LIMITS, changing), (31, GuardAction::TakeBack(_))));
    }

    #[test]
    fn the_end_waits_for_a_sidecar_that_is_silent_then() {
        let returns = |second| vec![if (590..615).contains(&second) { unreachable() } else { SyncState::Synced }];
        assert_eq!(run(LIMITS, returns), (615, GuardAction::Keep), "what it refused meanwhile is read first");
    }

    #[test]
    fn only_the_flag_keeps_a_change_with_a_silent_sidecar() {
        let limits = Limits { keep_unanswered: true, ..LIMITS };
        assert_eq!(run(limits, |_| vec![SyncState::Synced, unreachable()]), (600, GuardAction::Keep));
        assert!(matches!(run(limits, |_| vec![SyncState::Stale, unreachable()]), (60, GuardAction::TakeBack(_))));
    }
}
