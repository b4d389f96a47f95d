//! Laws of `readiness`.

use portcullis_api::{Mode, Transport};
use portcullis_report::readiness::{Options, PortReadiness, Readiness};
use portcullis_report::{Answer, Form, Names, Window};
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::*;

const REASONS: [&str; 2] = ["plaintext_in_strict", "authorization_denied"];

pub(crate) fn connection() -> impl Strategy<Value = Connection> {
    let transports = vec![Transport::Mtls, Transport::Mtls, Transport::Plaintext, Transport::Tls, Transport::Unknown];
    let addresses = vec!["10.0.0.1", "10.0.0.5", "10.0.0.9", "fd00::5", "::ffff:10.0.0.5", "127.0.0.1"];
    let times = (prop_oneof![0..20 * DAY, 0..2 * DAY, 6 * DAY..9 * DAY], prop_oneof![3 => Just(0), 1 => 0..10 * DAY]);
    let who = (select(transports), select(addresses), select(vec!["web", "api"]));
    let refused = prop::option::weighted(0.3, select(REASONS.to_vec()));
    (times, who, select(vec![8080_u16, 9090, 7]), refused).prop_map(
        |((ago, lasted), (transport, address, account), port, refused)| {
            let base = if transport == Transport::Mtls { mtls(account, ago) } else { plaintext(address, ago) };
            Connection { lasted, transport, port, refused, address: address.parse().unwrap(), ..base }
        },
    )
}

/// Connections, each seen by one of four replicas.
fn spread() -> impl Strategy<Value = Vec<(usize, Connection)>> {
    prop::collection::vec((0..4_usize, connection()), 0..40)
}

fn answers(spread: &[(usize, Connection)], mode: Mode) -> Vec<Answer> {
    let of =
        |replica: usize| spread.iter().filter(|(at, _)| *at == replica).map(|(_, it)| it.clone()).collect::<Vec<_>>();
    let answer_of = |replica: usize| {
        let mut observations = sidecar(ledger(&of(replica)));
        for port in &mut observations.ports {
            port.mode = mode;
        }
        answer(observations)
    };
    (0..4).map(answer_of).collect()
}

fn report(answers: &[Answer], window: u64) -> Readiness {
    let options = Options { window: Window { seconds: window }, ..options() };
    Readiness::new(answers, &Names::default(), &[], &options)
}

fn windows() -> impl Strategy<Value = u64> {
    prop_oneof![Just(WEEK), 60..3 * WEEK, 60..7200_u64]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_answers_and_observations_does_not_matter(
        (spread, order, window) in (spread(), Just(vec![0_usize, 1, 2, 3]).prop_shuffle(), windows())
    ) {
        let answers = answers(&spread, Mode::Permissive);
        let mut shuffled: Vec<Answer> = order.iter().map(|at| answers[*at].clone()).collect();
        for answer in &mut shuffled {
            answer.observations.as_mut().unwrap().observations.reverse();
        }
        for form in Form::ALL {
            prop_assert_eq!(report(&answers, window).render(form).unwrap(), report(&shuffled, window).render(form).unwrap());
        }
    }

    /// Each observation may be in the answer of any replica.
    #[test]
    fn the_replica_that_saw_an_observation_does_not_matter((spread, moves, window) in (spread(), prop::collection::vec(0..4_usize, 160), windows())) {
        let answers = answers(&spread, Mode::Permissive);
        let mut moved = answers.clone();
        let mut all = Vec::new();
        for answer in &mut moved {
            all.append(&mut answer.observations.as_mut().unwrap().observations);
        }
        for (observation, to) in all.into_iter().zip(moves) {
            moved[to].observations.as_mut().unwrap().observations.push(observation);
        }
        prop_assert_eq!(report(&answers, window).render(Form::Json).unwrap(), report(&moved, window).render(Form::Json).unwrap());
    }

    #[test]
    fn ready_means_that_no_other_connection_was_let_through((spread, window) in (spread(), windows())) {
        let report = report(&answers(&spread, Mode::Permissive), window);
        let start = NOW - i64::try_from(window).unwrap();
        for port in &report.items {
            let others: Vec<_> =
                spread.iter().map(|(_, it)| it).filter(|it| it.port == port.port && it.transport != Transport::Mtls).collect();
            let in_window = |it: &&&Connection| it.until() >= start;
            let let_through = |it: &&&Connection| it.refused.is_none();
            match port.verdict {
                PortReadiness::Ready | PortReadiness::NoData => {
                    prop_assert_eq!(others.iter().filter(let_through).filter(in_window).count(), 0, "{:?}", port);
                }
                // It was let through at some time, and was seen in the window.
                PortReadiness::NotReady => {
                    let same = |one: &Connection, other: &Connection| {
                        (one.address.to_canonical(), one.transport) == (other.address.to_canonical(), other.transport)
                    };
                    let seen = |it: &&Connection| others.iter().filter(in_window).any(|other| same(it, other));
                    prop_assert!(others.iter().filter(let_through).any(seen), "{:?}", port);
                }
                PortReadiness::Enforced | PortReadiness::Exception => prop_assert!(false),
            }
        }
    }

    #[test]
    fn one_more_plaintext_client_makes_nothing_more_ready(
        (spread, added, ago, window, mode) in
            (spread(), 0..4_usize, 0..10 * DAY, windows(), select(vec![Mode::Permissive, Mode::Disable, Mode::Strict, Mode::Unknown]))
    ) {
        let before = report(&answers(&spread, mode), window);
        let mut more = spread;
        more.push((added, plaintext("10.0.0.77", ago)));
        let after = report(&answers(&more, mode), window);
        prop_assert!(after.status >= before.status);
        for port in &before.items {
            let same = after.items.iter().find(|it| it.port == port.port).unwrap();
            prop_assert!(same.verdict >= port.verdict, "{:?} {:?}", port, same);
        }
    }
}
