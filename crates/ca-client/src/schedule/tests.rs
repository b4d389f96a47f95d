//! Simulated time: what the schedule does in weeks, in a moment.

use proptest::prelude::*;

use super::*;

const DAY: i64 = 24 * 3600;
const START: i64 = 1_800_000_000;

/// A simulation with both clocks, and an authority that may be down.
struct Simulation {
    now: Now,
    schedule: Schedule,
    not_after: i64,
    /// Monotonic times of all attempts and of those that went well.
    attempts: Vec<Duration>,
    renewals: Vec<Duration>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self::renewing(seed, Renewal::default())
    }

    fn renewing(seed: u64, renewal: Renewal) -> Self {
        let now = Now { unix: START, monotonic: Duration::from_secs(1000) };
        let schedule = Schedule::new(seed, renewal);
        Self { now, schedule, not_after: 0, attempts: Vec::new(), renewals: Vec::new() }
    }

    fn pass(&mut self, time: Duration) {
        let before = self.now.monotonic.as_secs();
        self.now.monotonic += time;
        self.now.unix += i64::try_from(self.now.monotonic.as_secs() - before).unwrap();
    }

    /// Lets so many seconds pass. The authority issues `life` seconds by a clock that may be `ahead` of ours, or is down.
    fn run(&mut self, seconds: u64, life: Option<i64>, ahead: i64) {
        let end = self.now.monotonic + Duration::from_secs(seconds);
        while self.now.monotonic < end {
            match self.schedule.next(self.now) {
                Action::Wait(wait) => {
                    assert!(!wait.is_zero() && wait <= MAX_WAIT, "{wait:?}");
                    self.pass(wait.min(end - self.now.monotonic));
                }
                Action::Poll => self.schedule.polled(self.now, Some(Duration::ZERO)),
                Action::Fetch => {
                    self.attempts.push(self.now.monotonic);
                    let from = self.now.unix + ahead;
                    match life.map(|life| (from - 60, from + life)) {
                        // What a validation says: it holds now.
                        Some((not_before, not_after)) if (not_before..=not_after).contains(&self.now.unix) => {
                            self.schedule.fetched(self.now, not_before, not_after);
                            self.not_after = not_after;
                            self.renewals.push(self.now.monotonic);
                        }
                        _ => {
                            self.schedule.failed(self.now, FailureKind::Remote { retry_after: None });
                        }
                    }
                }
            }
        }
    }

    fn gaps(times: &[Duration]) -> impl Iterator<Item = Duration> {
        times.windows(2).map(|pair| pair[1] - pair[0])
    }
}

#[test]
fn the_first_is_due_at_once_and_renewals_at_half_life() {
    let mut simulation = Simulation::new(1);
    assert_eq!(simulation.schedule.next(simulation.now), Action::Fetch);
    simulation.run(30 * 86_400, Some(DAY), 0);
    assert!(simulation.renewals.len() > 50);
    for gap in Simulation::gaps(&simulation.renewals) {
        assert!((38_880..=47_521).contains(&gap.as_secs()), "{gap:?}");
    }
}

#[test]
fn a_ca_that_is_down_is_retried_with_backoff_and_once_more_before_expiry() {
    let mut simulation = Simulation::new(2);
    simulation.run(1, Some(DAY), 0);
    simulation.run(2 * 86_400, None, 0);
    let gaps: Vec<_> = Simulation::gaps(&simulation.attempts[1..]).collect();
    assert!(gaps[0] >= backoff::MIN_DELAY && gaps[0] < Duration::from_secs(2), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap >= backoff::MIN_DELAY && *gap <= backoff::MAX_DELAY + Duration::from_secs(1)));
    let end = Duration::from_secs(1000 + 86_400);
    let last = simulation.attempts.iter().rev().find(|at| **at < end).unwrap();
    assert!(end - *last < Duration::from_secs(3), "{:?} before its end", end - *last);
    let before = simulation.attempts.len();
    simulation.run(200, Some(DAY), 0);
    assert_eq!((simulation.attempts.len(), simulation.renewals.len()), (before + 1, 2), "back at the next attempt");
}

#[test]
fn retry_after_is_honoured_and_a_missing_token_is_checked_often() {
    let mut simulation = Simulation::new(3);
    let remote = |seconds| FailureKind::Remote { retry_after: Some(Duration::from_secs(seconds)) };
    assert_eq!(simulation.schedule.failed(simulation.now, remote(60)).as_secs(), 60);
    assert_eq!(simulation.schedule.failed(simulation.now, remote(100_000)), backoff::MAX_DELAY);
    for _ in 0..20 {
        assert!(simulation.schedule.failed(simulation.now, FailureKind::Local) <= backoff::MAX_LOCAL_DELAY);
    }
    simulation.pass(backoff::MIN_DELAY);
    simulation.schedule.retry_now(simulation.now);
    assert_eq!(simulation.schedule.next(simulation.now), Action::Fetch);
}

#[test]
fn a_clock_set_back_an_hour_does_not_stop_renewals() {
    let mut simulation = Simulation::new(4);
    simulation.run(3600, Some(DAY), 0);
    simulation.now.unix -= 3600;
    simulation.run(5 * 86_400, Some(DAY), 0);
    assert!(simulation.renewals.len() >= 9, "{}", simulation.renewals.len());
    assert!(Simulation::gaps(&simulation.renewals).all(|gap| gap.as_secs() <= 47_521));
}

#[test]
fn a_clock_set_forward_a_day_renews_at_once_and_does_not_spin() {
    // The authority's clock is right, so nothing it issues holds for us while ours is wrong.
    let mut simulation = Simulation::new(5);
    simulation.run(3600, Some(DAY), 0);
    simulation.now.unix += DAY;
    let before = simulation.attempts.len();
    simulation.run(3600, Some(DAY), -DAY);
    let asked = simulation.attempts.len() - before;
    assert!((20..80).contains(&asked), "{asked} attempts in an hour");
    let before = simulation.renewals.len();
    simulation.now.unix -= DAY;
    simulation.run(200, Some(DAY), 0);
    assert_eq!(simulation.renewals.len(), before + 1, "renewed as soon as the clock is right");
    // Both clocks were set, or the machine slept: new ones at once, and no more than that.
    let mut simulation = Simulation::new(6);
    simulation.run(3600, Some(DAY), 0);
    simulation.now.unix += DAY;
    simulation.run(3600, Some(DAY), 0);
    assert_eq!(simulation.attempts.len(), 2);
}

#[test]
fn bundles_are_asked_for_by_the_hint() {
    let mut simulation = Simulation::new(7);
    let now = simulation.now;
    simulation.schedule.fetched(now, START, START + DAY);
    let first = |schedule: &Schedule, from: Now| {
        (0..200_000_u64)
            .map(|tick| Now { monotonic: from.monotonic + Duration::from_millis(tick * 100), ..from })
            .position(|now| schedule.next(now) == Action::Poll)
            .map(|tick| tick / 10)
    };
    for (hint, expected) in [(0, 270..=330), (60, 54..=66), (10_000, 9000..=11_000)] {
        simulation.schedule.polled(now, Some(Duration::from_secs(hint)));
        let at = first(&simulation.schedule, now).unwrap();
        assert!(expected.contains(&at), "{hint}: {at}");
    }
    simulation.schedule.poll_failed(now);
    assert!(first(&simulation.schedule, now).unwrap() <= 1);
    simulation.schedule.polled(now, None);
    assert_eq!(first(&simulation.schedule, now), None, "not from this authority");
}

/// A thousand workloads that started in the same second do not return in the same one.
#[test]
fn renewal_spread_1000_workloads() {
    let mut simulations: Vec<_> =
        (0..1000_u64).map(|n| Simulation::new(n.wrapping_mul(0x1234_5678_9abc_def1))).collect();
    simulations.iter_mut().for_each(|simulation| simulation.run(3 * 86_400, Some(DAY), 0));
    let histogram = |index: usize, from: u64, width: u64| {
        let mut bins = [0_u32; 20];
        for simulation in &simulations {
            let at = simulation.renewals[index].as_secs() - 1000;
            assert!((from..from + 20 * width + 21).contains(&at), "{index}: {at}");
            bins[usize::try_from((at - from) / width).unwrap().min(19)] += 1;
        }
        bins
    };
    // Between 45 % and 55 % of a day: 8,640 s in 20 bins, fifty each.
    let first = histogram(1, 38_880, 432);
    assert!(first.iter().all(|count| (15..100).contains(count)), "{first:?}");
    // The second renewal is the sum of two chances: twice as wide, most in the middle, at most a tenth of all in a bin.
    let second = histogram(2, 77_760, 864);
    assert!(second.iter().all(|count| *count < 150), "{second:?}");
    // No minute sees more than a small share, where all at once would be a thousand.
    let mut minutes = std::collections::BTreeMap::<u64, u32>::new();
    for at in simulations.iter().flat_map(|simulation| &simulation.renewals[1..]) {
        *minutes.entry(at.as_secs() / 60).or_default() += 1;
    }
    assert!(minutes.values().all(|count| *count < 30), "{:?}", minutes.values().max());
}

proptest! {
    /// Whatever the clocks and the authority do: no spin, and no certificate that could be renewed ends.
    #[test]
    fn it_neither_spins_nor_sleeps_through_an_end(
        seed in any::<u64>(),
        life in 10_i64..3 * DAY,
        steps in prop::collection::vec((0_u64..20_000, -4000_i64..90_000, any::<bool>()), 1..12),
    ) {
        let mut simulation = Simulation::new(seed);
        for (seconds, step, up) in steps {
            simulation.run(seconds, up.then_some(life), 0);
            simulation.now.unix += step;
        }
        for gap in Simulation::gaps(&simulation.attempts) {
            prop_assert!(gap >= backoff::MIN_DELAY, "{gap:?}");
        }
        // With an authority that answers, there is a certificate after the longest pause, and from then on always.
        simulation.run(152, Some(life), 0);
        prop_assert!(!simulation.renewals.is_empty() && simulation.now.unix < simulation.not_after);
        let from = simulation.renewals.len() - 1;
        simulation.run(u64::try_from(life).unwrap() * 3, Some(life), 0);
        for gap in Simulation::gaps(&simulation.renewals[from..]) {
            prop_assert!(i64::try_from(gap.as_secs()).unwrap() < life, "{gap:?} of {life} s");
        }
    }
}

#[test]
fn a_certificate_is_renewed_within_the_window_that_is_asked_for() {
    for seed in 0..50 {
        let mut simulation = Simulation::renewing(seed, Renewal { grace: 250_000, jitter: 10_000 });
        simulation.run(3 * 24 * 3600, Some(DAY), 0);
        assert!(simulation.renewals.len() >= 4, "{:?}", simulation.renewals);
        for pair in simulation.renewals.windows(2) {
            let share = (pair[1] - pair[0]).as_secs_f64() / 86_400.0;
            // The remaining wait is checked every half minute.
            assert!((0.739..=0.761).contains(&share), "seed {seed}: {share}");
        }
    }
}
