//! Simulated time: what the schedule does in weeks, in a moment.

use proptest::prelude::*;

use super::*;

const DAY: i64 = 24 * 3600;
const START: i64 = 1_800_000_000;

/// A world with both clocks, and an authority that may be down.
struct World {
    now: Now,
    schedule: Schedule,
    not_after: i64,
    /// Monotonic times of all attempts and of those that went well.
    attempts: Vec<Duration>,
    renewals: Vec<Duration>,
}

impl World {
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
    let mut world = World::new(1);
    assert_eq!(world.schedule.next(world.now), Action::Fetch);
    world.run(30 * 86_400, Some(DAY), 0);
    assert!(world.renewals.len() > 50);
    for gap in World::gaps(&world.renewals) {
        assert!((38_880..=47_521).contains(&gap.as_secs()), "{gap:?}");
    }
}

#[test]
fn a_ca_that_is_down_is_retried_with_backoff_and_once_more_before_expiry() {
    let mut world = World::new(2);
    world.run(1, Some(DAY), 0);
    world.run(2 * 86_400, None, 0);
    let gaps: Vec<_> = World::gaps(&world.attempts[1..]).collect();
    assert!(gaps[0] >= backoff::MIN_DELAY && gaps[0] < Duration::from_secs(2), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap >= backoff::MIN_DELAY && *gap <= backoff::MAX_DELAY + Duration::from_secs(1)));
    let end = Duration::from_secs(1000 + 86_400);
    let last = world.attempts.iter().rev().find(|at| **at < end).unwrap();
    assert!(end - *last < Duration::from_secs(3), "{:?} before its end", end - *last);
    let before = world.attempts.len();
    world.run(200, Some(DAY), 0);
    assert_eq!((world.attempts.len(), world.renewals.len()), (before + 1, 2), "back at the next attempt");
}

#[test]
fn retry_after_is_honoured_and_a_missing_token_is_checked_often() {
    let mut world = World::new(3);
    let remote = |seconds| FailureKind::Remote { retry_after: Some(Duration::from_secs(seconds)) };
    assert_eq!(world.schedule.failed(world.now, remote(60)).as_secs(), 60);
    assert_eq!(world.schedule.failed(world.now, remote(100_000)), backoff::MAX_DELAY);
    for _ in 0..20 {
        assert!(world.schedule.failed(world.now, FailureKind::Local) <= backoff::MAX_LOCAL_DELAY);
    }
    world.pass(backoff::MIN_DELAY);
    world.schedule.retry_now(world.now);
    assert_eq!(world.schedule.next(world.now), Action::Fetch);
}

#[test]
fn a_clock_set_back_an_hour_does_not_stop_renewals() {
    let mut world = World::new(4);
    world.run(3600, Some(DAY), 0);
    world.now.unix -= 3600;
    world.run(5 * 86_400, Some(DAY), 0);
    assert!(world.renewals.len() >= 9, "{}", world.renewals.len());
    assert!(World::gaps(&world.renewals).all(|gap| gap.as_secs() <= 47_521));
}

#[test]
fn a_clock_set_forward_a_day_renews_at_once_and_does_not_spin() {
    // The authority's clock is right, so nothing it issues holds for us while ours is wrong.
    let mut world = World::new(5);
    world.run(3600, Some(DAY), 0);
    world.now.unix += DAY;
    let before = world.attempts.len();
    world.run(3600, Some(DAY), -DAY);
    let asked = world.attempts.len() - before;
    assert!((20..80).contains(&asked), "{asked} attempts in an hour");
    let before = world.renewals.len();
    world.now.unix -= DAY;
    world.run(200, Some(DAY), 0);
    assert_eq!(world.renewals.len(), before + 1, "renewed as soon as the clock is right");
    // Both clocks were set, or the machine slept: new ones at once, and no more than that.
    let mut world = World::new(6);
    world.run(3600, Some(DAY), 0);
    world.now.unix += DAY;
    world.run(3600, Some(DAY), 0);
    assert_eq!(world.attempts.len(), 2);
}

#[test]
fn bundles_are_asked_for_by_the_hint() {
    let mut world = World::new(7);
    let now = world.now;
    world.schedule.fetched(now, START, START + DAY);
    let first = |schedule: &Schedule, from: Now| {
        (0..200_000_u64)
            .map(|tick| Now { monotonic: from.monotonic + Duration::from_millis(tick * 100), ..from })
            .position(|now| schedule.next(now) == Action::Poll)
            .map(|tick| tick / 10)
    };
    for (hint, expected) in [(0, 270..=330), (60, 54..=66), (10_000, 9000..=11_000)] {
        world.schedule.polled(now, Some(Duration::from_secs(hint)));
        let at = first(&world.schedule, now).unwrap();
        assert!(expected.contains(&at), "{hint}: {at}");
    }
    world.schedule.poll_failed(now);
    assert!(first(&world.schedule, now).unwrap() <= 1);
    world.schedule.polled(now, None);
    assert_eq!(first(&world.schedule, now), None, "not from this authority");
}

/// A thousand workloads that started in the same second do not return in the same one.
#[test]
fn renewal_spread_1000_workloads() {
    let mut worlds: Vec<_> = (0..1000_u64).map(|n| World::new(n.wrapping_mul(0x1234_5678_9abc_def1))).collect();
    worlds.iter_mut().for_each(|world| world.run(3 * 86_400, Some(DAY), 0));
    let histogram = |index: usize, from: u64, width: u64| {
        let mut bins = [0_u32; 20];
        for world in &worlds {
            let at = world.renewals[index].as_secs() - 1000;
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
    for at in worlds.iter().flat_map(|world| &world.renewals[1..]) {
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
        let mut world = World::new(seed);
        for (seconds, step, up) in steps {
            world.run(seconds, up.then_some(life), 0);
            world.now.unix += step;
        }
        for gap in World::gaps(&world.attempts) {
            prop_assert!(gap >= backoff::MIN_DELAY, "{gap:?}");
        }
        // With an authority that answers, there is a certificate after the longest pause, and from then on always.
        world.run(152, Some(life), 0);
        prop_assert!(!world.renewals.is_empty() && world.now.unix < world.not_after);
        let from = world.renewals.len() - 1;
        world.run(u64::try_from(life).unwrap() * 3, Some(life), 0);
        for gap in World::gaps(&world.renewals[from..]) {
            prop_assert!(i64::try_from(gap.as_secs()).unwrap() < life, "{gap:?} of {life} s");
        }
    }
}

#[test]
fn a_certificate_is_renewed_within_the_window_that_is_asked_for() {
    for seed in 0..50 {
        let mut world = World::renewing(seed, Renewal { grace: 250_000, jitter: 10_000 });
        world.run(3 * 24 * 3600, Some(DAY), 0);
        assert!(world.renewals.len() >= 4, "{:?}", world.renewals);
        for pair in world.renewals.windows(2) {
            let share = (pair[1] - pair[0]).as_secs_f64() / 86_400.0;
            // The remaining wait is checked every half minute.
            assert!((0.739..=0.761).contains(&share), "seed {seed}: {share}");
        }
    }
}
