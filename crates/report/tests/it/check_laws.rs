//! Laws of checks, for any sidecars.

use portcullis_api::{CaptureListener, CaptureRules, ConfigChange, Timestamp};
use portcullis_report::check::{Check, Facts, Id, Known, NoAnswer, Sidecar, State, evaluate, overall};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::check::{certificate, facts, find, well};
use crate::model::{DAY, HOUR, NOW};

/// Sidecars with any faults.
fn any_known(name: usize) -> impl Strategy<Value = Known> {
    let times = (-40 * DAY..DAY, -2 * DAY..200 * DAY, proptest::option::of(-DAY..DAY));
    let words = (0..3_u8, 0..5_u8, any::<bool>(), any::<bool>(), any::<bool>());
    (times, words, -200..200_i64).prop_map(
        move |((from, until, renews), (hash, rules, is_old, is_pending, is_bad), clock)| {
            let mut known = well(&format!("w{name}"));
            known.policies.hash = Some(format!("hash{hash}"));
            known.certs.certificates[0].cert_chain = vec![certificate("leaf", from, until)];
            known.certs.certificates[0].renews_at = renews.map(|at| Timestamp::from_unix(NOW + at));
            known.proxy.now = Timestamp::from_unix(NOW + clock);
            known.chain = if is_bad { Err("unknown CA".to_owned()) } else { Ok(()) };
            let status = known.status.as_mut().unwrap();
            status.capture.inbound = (rules > 0).then(CaptureListener::default);
            status.capture.rules = match rules {
                1 => CaptureRules::AsPlanned,
                2 => CaptureRules::Missing,
                3 => CaptureRules::Different,
                _ => CaptureRules::Unknown,
            };
            if is_pending {
                status.pending = vec!["listeners".to_owned()];
                status.config_file.change = ConfigChange::Unknown;
            }
            if is_old {
                known.status = None;
            }
            known
        },
    )
}

fn any_facts() -> impl Strategy<Value = Facts> {
    (1..6_usize).prop_flat_map(|count| (0..count).map(any_known).collect::<Vec<_>>()).prop_map(facts)
}

/// Checks of what only a new version says.
const OF_STATUS: [Id; 8] = [
    Id::ProxyReady,
    Id::ProxyConfig,
    Id::CaptureRules,
    Id::CertificateSource,
    Id::PolicyIgnoredFiles,
    Id::ServicesSidecars,
    Id::LedgerWritten,
    Id::LedgerComplete,
];

fn summary(checks: &[Check]) -> Vec<String> {
    checks
        .iter()
        .map(|check| {
            let mut findings: Vec<String> = check.findings.iter().map(|finding| format!("{finding:?}")).collect();
            findings.sort();
            format!("{} {:?} {findings:?}", check.name, check.state)
        })
        .collect()
}

proptest! {
    #[test]
    fn the_order_of_the_answers_changes_nothing((one, other) in any_facts().prop_flat_map(|facts| {
        let sidecars = Just(facts.sidecars.clone()).prop_shuffle();
        (Just(facts.clone()), sidecars.prop_map(move |sidecars| Facts { sidecars, ..facts.clone() }))
    })) {
        prop_assert_eq!(summary(&evaluate(&one)), summary(&evaluate(&other)));
    }

    #[test]
    fn what_a_proxy_does_not_say_is_no_pass(facts in any_facts()) {
        let mut facts = facts;
        let Ok(first) = &mut facts.sidecars[0].answer else { unreachable!() };
        first.status = None;
        let title = format!("{}.shop", first.proxy.name);
        let checks = evaluate(&facts);
        for id in OF_STATUS {
            let check = find(&checks, id);
            let own = check.findings.iter().find(|finding| finding.proxies.contains(&title)).unwrap();
            prop_assert_eq!(own.state, State::Unchecked);
            prop_assert!(check.state >= State::Unchecked);
        }
    }

    #[test]
    fn one_more_silent_proxy_makes_no_mesh_well(facts in any_facts()) {
        let before = overall(&evaluate(&facts));
        let mut facts = facts;
        let answer = Err(NoAnswer { message: "no answer".to_owned(), is_other: false });
        facts.sidecars.push(Sidecar { label: "10.0.0.1:15000".to_owned(), answer });
        let after = evaluate(&facts);
        prop_assert!(overall(&after) >= before);
        prop_assert_eq!(find(&after, Id::ProxyAnswers).state, State::Failed);
    }

    #[test]
    fn every_problem_of_a_proxy_has_a_remedy(facts in any_facts()) {
        for check in evaluate(&facts) {
            prop_assert_eq!(check.state, check.findings.iter().map(|finding| finding.state).max().unwrap());
            for finding in check.findings.iter().filter(|finding| finding.state >= State::Warning && !finding.proxies.is_empty()) {
                prop_assert!(finding.remedy.is_some() || finding.state == State::Unchecked, "{:?}", finding);
            }
        }
    }

    #[test]
    fn a_certificate_passes_only_with_more_than_a_third_left_and_no_renewal_overdue(
        from in -40 * DAY..HOUR, until in -DAY..40 * DAY, renews in proptest::option::of(-DAY..DAY)
    ) {
        let mut known = well("cart");
        known.certs.certificates[0].cert_chain = vec![certificate("leaf", from, until)];
        known.certs.certificates[0].renews_at = renews.map(|at| Timestamp::from_unix(NOW + at));
        let state = find(&evaluate(&facts(vec![known])), Id::CertificateTime).state;
        let is_fine = from <= 0 && until >= 0 && until > (until - from) / 3 && renews.is_none_or(|at| at >= -60);
        prop_assert_eq!(state == State::Passed, is_fine, "{:?}", state);
        prop_assert!(is_fine || state == State::Failed);
    }

    #[test]
    fn equal_sets_pass_and_others_do_not(hashes in vec(0..3_u8, 2..8)) {
        let known = hashes.iter().enumerate().map(|(index, hash)| {
            let mut known = well(&format!("w{index}"));
            known.policies.hash = Some(format!("hash{hash}"));
            known
        });
        let state = find(&evaluate(&facts(known.collect())), Id::PolicyEqual).state;
        prop_assert_eq!(state == State::Passed, hashes.iter().all(|hash| *hash == hashes[0]));
    }
}
