use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_policy::directory::LoadBalancer;
use proptest::prelude::*;
use tokio::time::Instant;

use super::pick::Candidate;
use super::state::EndpointState;
use super::{EndpointStates, OutlierSettings, Spec, failed, pick};

const POLICIES: [LoadBalancer; 3] = [LoadBalancer::LeastRequest, LoadBalancer::Random, LoadBalancer::RoundRobin];

fn address(last: usize) -> SocketAddr {
    SocketAddr::new([10, 0, 0, u8::try_from(last).unwrap()].into(), 80)
}

fn candidate(last: usize, priority: u8, weight: u32, now: Instant) -> Candidate {
    Candidate { address: address(last), priority, weight, state: Arc::new(EndpointState::new(now)) }
}

fn equal(count: usize, now: Instant) -> Vec<Candidate> {
    (0..count).map(|last| candidate(last, 0, 1, now)).collect()
}

fn eject(candidate: &Candidate, now: Instant) {
    candidate.state.eject(now, |_number| Duration::from_secs(30));
}

/// How often each is chosen in `rounds` choices.
fn shares(candidates: &[Candidate], policy: LoadBalancer, rounds: u64, now: Instant) -> Vec<u64> {
    let (mut random, mut counts) = (fastrand::Rng::with_seed(7), vec![0; candidates.len()]);
    for turn in 0..rounds {
        counts[pick(candidates, &[], policy, turn, &mut random, now).unwrap()] += 1;
    }
    counts
}

proptest! {
    #[test]
    fn the_choice_is_never_a_tried_one_nor_an_ejected_or_farther_one_while_there_is_a_better(
        endpoints in prop::collection::vec((0_u8..4, 0_u32..5, any::<bool>(), any::<bool>(), 0_usize..4), 0..16),
        policy in prop::sample::select(POLICIES.to_vec()),
        seed: u64,
        turn: u64,
    ) {
        let now = Instant::now();
        let (mut candidates, mut tried, mut guards) = (Vec::new(), Vec::new(), Vec::new());
        for (last, (priority, weight, is_tried, is_ejected, active)) in endpoints.into_iter().enumerate() {
            let candidate = candidate(last, priority, weight, now);
            guards.extend((0..active).map(|_| candidate.state.enter()));
            if is_tried {
                tried.push(candidate.address);
            }
            if is_ejected {
                eject(&candidate, now);
            }
            candidates.push(candidate);
        }
        let left: Vec<_> = candidates.iter().filter(|it| !tried.contains(&it.address)).collect();
        let healthy: Vec<_> = left.iter().copied().filter(|it| !it.state.is_ejected(now)).collect();
        let pool = if healthy.is_empty() { &left } else { &healthy };
        let closest = pool.iter().map(|it| it.priority).min();
        let allowed: BTreeSet<_> =
            pool.iter().filter(|it| Some(it.priority) == closest).map(|it| it.address).collect();
        let chosen = pick(&candidates, &tried, policy, turn, &mut fastrand::Rng::with_seed(seed), now);
        match chosen {
            Some(chosen) => prop_assert!(allowed.contains(&candidates[chosen].address)),
            None => prop_assert!(allowed.is_empty()),
        }
        drop(guards);
        prop_assert!(candidates.iter().all(|it| it.state.active() == 0));
    }

    /// However connections fail and succeed: one is always left, and no more than the allowed share is ejected.
    #[test]
    fn ejections_keep_to_their_bounds(
        count in 1_usize..8,
        percent in 0_u8..=100,
        events in prop::collection::vec((0_usize..8, any::<bool>(), 0_u64..60), 0..200),
    ) {
        let mut now = Instant::now();
        let candidates = equal(count, now);
        let settings = OutlierSettings { consecutive_failures: 2, max_ejection_percent: percent, ..OutlierSettings::default() };
        for (index, is_success, pause) in events {
            now += Duration::from_secs(pause);
            let index = index % count;
            if is_success {
                candidates[index].state.count_success();
            } else if let Some(ejection) = failed(&candidates, index, &settings, now) {
                prop_assert!(ejection <= Duration::from_secs(300) && ejection >= settings.base_ejection);
            }
            let ejected = candidates.iter().filter(|it| it.state.is_ejected(now)).count();
            prop_assert!(ejected < count, "one is left");
            prop_assert!(ejected * 100 <= usize::from(percent) * count || (ejected == 1 && percent > 0));
        }
    }
}

#[test]
fn equal_endpoints_get_equal_shares() {
    let now = Instant::now();
    for policy in POLICIES {
        let counts = shares(&equal(2, now), policy, 10_000, now);
        assert!(counts.iter().all(|count| (4_800..=5_200).contains(count)), "{policy:?}: {counts:?}");
    }
}

#[test]
fn weights_are_shares() {
    let now = Instant::now();
    let candidates = vec![candidate(0, 0, 3, now), candidate(1, 0, 1, now)];
    for policy in [LoadBalancer::Random, LoadBalancer::RoundRobin] {
        let counts = shares(&candidates, policy, 10_000, now);
        assert!((7_300..=7_700).contains(&counts[0]), "{policy:?}: {counts:?}");
    }
    // For least request they are shares of the open connections.
    let mut random = fastrand::Rng::with_seed(7);
    let mut guards = Vec::new();
    for turn in 0..400 {
        let chosen = pick(&candidates, &[], LoadBalancer::LeastRequest, turn, &mut random, now).unwrap();
        guards.push(candidates[chosen].state.enter());
    }
    let open = candidates[0].state.active();
    assert!((299..=301).contains(&open), "{open}");
}

#[test]
fn the_less_busy_of_two_is_chosen() {
    let now = Instant::now();
    let candidates = equal(2, now);
    let _open = candidates[0].state.enter();
    assert_eq!(shares(&candidates, LoadBalancer::LeastRequest, 1_000, now), [0, 1_000]);
    // Of many, the busiest is never chosen.
    let candidates = equal(5, now);
    let _open = candidates[3].state.enter();
    assert_eq!(shares(&candidates, LoadBalancer::LeastRequest, 1_000, now)[3], 0);
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time_and_a_success_forgives() {
    let mut now = Instant::now();
    let candidates = equal(3, now);
    let settings = OutlierSettings::default();
    let fail = |times: u32, now: Instant| (0..times).fold(None, |_, _| failed(&candidates, 0, &settings, now));
    assert_eq!(fail(4, now), None);
    candidates[0].state.count_success();
    assert_eq!(fail(4, now), None, "the four before do not count any more");
    assert_eq!(fail(1, now), Some(Duration::from_secs(30)));
    assert!(candidates[0].state.is_ejected(now + Duration::from_secs(29)));
    now += Duration::from_secs(30);
    assert!(!candidates[0].state.is_ejected(now));
    assert_eq!(fail(5, now), Some(Duration::from_secs(60)));
    now += Duration::from_secs(60);
    for seconds in [90, 120, 150, 180, 210, 240, 270, 300, 300] {
        assert_eq!(fail(5, now), Some(Duration::from_secs(seconds)));
        now += Duration::from_secs(seconds);
    }
    // It was well for longer than the longest ejection.
    assert_eq!(fail(5, now + Duration::from_secs(301)), Some(Duration::from_secs(30)));
    let off = OutlierSettings { consecutive_failures: 0, ..settings };
    assert_eq!((0..100).find_map(|_| failed(&candidates, 1, &off, now)), None);
}

#[test]
fn one_may_be_ejected_whatever_the_share_and_the_last_one_never() {
    let now = Instant::now();
    let settings = OutlierSettings { consecutive_failures: 1, max_ejection_percent: 10, ..OutlierSettings::default() };
    let candidates = equal(3, now);
    assert!(failed(&candidates, 0, &settings, now).is_some());
    assert_eq!(failed(&candidates, 1, &settings, now), None);
    assert_eq!(failed(&equal(1, now), 0, &settings, now), None);
    let all = OutlierSettings { max_ejection_percent: 100, ..settings };
    assert!(failed(&candidates, 1, &all, now).is_some());
    assert_eq!(failed(&candidates, 2, &all, now), None);
    let none = OutlierSettings { max_ejection_percent: 0, ..settings };
    assert_eq!(failed(&equal(3, now), 0, &none, now), None);
}

#[test]
fn a_choice_allocates_nothing() {
    let now = Instant::now();
    let candidates = equal(16, now);
    eject(&candidates[3], now);
    let tried = [address(5), address(6)];
    let mut random = fastrand::Rng::with_seed(7);
    for policy in POLICIES {
        let counted = allocation_counter::measure(|| {
            assert!(pick(&candidates, &tried, policy, 1, &mut random, now).is_some());
        });
        assert_eq!(counted.count_total, 0, "{policy:?}");
    }
}

#[test]
fn states_are_shared_until_nobody_has_used_them_for_ten_minutes() {
    let states = EndpointStates::default();
    let (cart, orders): (Arc<str>, Arc<str>) = ("cart.shop".into(), "orders.shop".into());
    let start = Instant::now();
    let get = |service: &Arc<str>, port: u16, now: Instant| {
        let specs = (0..2).map(|last| Spec { address: address(last), priority: 0, weight: 1 });
        states.candidates(service, port, specs, now)
    };
    let (first, turn) = get(&cart, 80, start);
    let (again, next) = get(&"cart.shop".into(), 80, start);
    assert_eq!((turn, next), (0, 1));
    let is_same = |one: &Candidate, other: &Candidate| Arc::ptr_eq(&one.state, &other.state);
    assert!(is_same(&first[0], &again[0]) && is_same(&first[1], &again[1]) && !is_same(&first[0], &first[1]));
    assert!(!is_same(&first[0], &get(&orders, 80, start).0[0]) && !is_same(&first[0], &get(&cart, 81, start).0[0]));
    // An open connection keeps its state.
    let open = first[1].state.enter();
    let later = start + Duration::from_secs(600);
    states.sweep(later - Duration::from_secs(1));
    assert!(is_same(&first[0], &get(&cart, 80, start).0[0]));
    states.sweep(later);
    let (after, turn) = get(&cart, 80, later);
    assert!(!is_same(&first[0], &after[0]) && is_same(&first[1], &after[1]));
    assert_eq!(turn, 3);
    drop(open);
    eject(&after[0], later);
    assert_eq!(states.sweep(later), 1);
    assert_eq!(states.sweep(later + Duration::from_secs(30)), 0);
}

#[test]
fn more_endpoints_than_are_remembered_can_still_be_chosen() {
    let states = EndpointStates::default();
    let service: Arc<str> = "cart.shop".into();
    let now = Instant::now();
    let specs = || {
        (0..5_000_u16).map(|port| Spec { address: SocketAddr::new([10, 0, 0, 1].into(), port), priority: 0, weight: 1 })
    };
    let (first, _) = states.candidates(&service, 80, specs(), now);
    let (again, _) = states.candidates(&service, 80, specs(), now);
    let shared = first.iter().zip(&again).filter(|(one, other)| Arc::ptr_eq(&one.state, &other.state)).count();
    assert_eq!((first.len(), shared), (5_000, 4_096));
}
