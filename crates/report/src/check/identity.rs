//! Certificates: there, trusted, renewed in time; roots the same everywhere, and not near their end.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_api::{Certificate, Timestamp, WorkloadCertificate};

use super::facts::Known;
use super::model::{Finding, State};
use crate::text::{length, list};

/// A renewal takes a moment.
const RENEWAL_GRACE: u64 = 60;
/// Issuers renew at half of a lifetime: with this part left, that failed. As `certs show` and the log of the sidecar have it.
const LEAF_FRACTION: u64 = 3;
const DAY: u64 = 86_400;
/// No workload has as many certificates of CAs, and a report with more could not be read.
const MOST_CERTIFICATES: usize = 256;

/// How long before its end a certificate of a CA is a warning, and a failure. Those of short life: a third and a tenth of it.
struct Limits {
    warns: u64,
    fails: u64,
}

const INTERMEDIATE: Limits = Limits { warns: 60 * DAY, fails: 7 * DAY };
const ROOT: Limits = Limits { warns: 180 * DAY, fails: 30 * DAY };

pub(super) fn present(known: &[&Known]) -> Vec<Finding> {
    let of = |known: &&Known| {
        let Some(own) = known.certs.certificates.first() else {
            let kind = known.status.as_ref().map(|status| status.identity.kind.is_some());
            let (message, remedy) = match kind {
                Some(false) => (
                    "no identity is configured: what would be terminated is refused",
                    "set `identity` in its configuration",
                ),
                Some(true) | None => ("it has no certificate yet", "see certificate-source below, and its log"),
            };
            return Finding::failed(Some(known), message.to_owned()).remedy(remedy.to_owned());
        };
        match own.state.strip_prefix("Unavailable: ") {
            // Why it cannot be used is told by its time.
            Some(problem) => Finding::failed(Some(known), format!("its certificate cannot be used: {problem}"))
                .remedy("see certificate-time and certificate-source below".to_owned()),
            None => Finding::passed(Some(known), own.identity.clone()),
        }
    };
    known.iter().map(of).collect()
}

pub(super) fn chain(known: &[&Known]) -> Vec<Finding> {
    let with_certificate = known.iter().filter(|known| !known.certs.certificates.is_empty());
    let of = |known: &&Known| match &known.chain {
        Ok(()) => Finding::passed(Some(known), "its chain leads to a root of its own trust domain".to_owned()),
        Err(why) => Finding::failed(Some(known), "its certificate does not verify, as a peer would see it".to_owned())
            .why([why.clone()])
            .remedy(format!(
                "`portcullis proxy-config secret {}` shows chain and roots; issue a certificate that fits",
                format_args!("{}.{}", known.proxy.name, known.proxy.namespace)
            )),
    };
    with_certificate.map(of).collect()
}

pub(super) fn leaf_time(known: &[&Known], now: Timestamp) -> Vec<Finding> {
    let of = |known: &&Known| {
        let own = known.certs.certificates.first()?;
        let leaf = own.cert_chain.first()?;
        let (state, message) = leaf_state(own, leaf, now);
        let finding = match state {
            State::Passed => return Some(Finding::passed(Some(known), message)),
            State::Unchecked => Finding::unchecked(Some(known), message),
            _ => Finding::failed(Some(known), message),
        };
        let source = known.status.as_ref().and_then(|status| status.identity.kind.as_deref());
        let id = &own.identity;
        Some(finding.remedy(match source {
            Some("ca" | "workloadApi") => {
                "correct what certificate-source says; SIGHUP to the proxy asks for a certificate at once".to_owned()
            }
            _ => format!(
                "renew the files of `identity.files`, such as with `portcullis certs issue --ca CA --id {id} --out DIR --force`"
            ),
        }))
    };
    known.iter().filter_map(of).collect()
}

fn leaf_state(own: &WorkloadCertificate, leaf: &Certificate, now: Timestamp) -> (State, String) {
    let (Some(from), Some(until)) = (leaf.valid_from, leaf.expiration_time) else {
        return (State::Unchecked, "the proxy does not say when its certificate is valid".to_owned());
    };
    let (left, lifetime) = (until.seconds_since(now), until.seconds_since(from));
    if now > until {
        return (State::Failed, format!("it expired {} ago, at {until}", length(now.seconds_since(until))));
    }
    if now < from {
        return (State::Failed, format!("it is not valid before {from}; compare the clocks"));
    }
    let overdue = own.renews_at.map(|at| now.seconds_since(at)).filter(|overdue| *overdue > RENEWAL_GRACE);
    if let Some(overdue) = overdue {
        return (
            State::Failed,
            format!("its renewal is {} overdue; it ends in {}, at {until}", length(overdue), length(left)),
        );
    }
    if left <= lifetime / LEAF_FRACTION {
        return (
            State::Failed,
            format!(
                "it ends in {}, at {until}: a third of its {} or less is left, and it was not renewed",
                length(left),
                length(lifetime)
            ),
        );
    }
    (State::Passed, format!("valid for {} more, until {until}", length(left)))
}

pub(super) fn intermediate_time(known: &[&Known], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for known in known {
        let chain = known.certs.certificates.first().map(|own| own.cert_chain.as_slice()).unwrap_or_default();
        if chain.len() > MOST_CERTIFICATES {
            findings.push(too_many(known, chain.len()));
            continue;
        }
        for intermediate in chain.iter().skip(1) {
            let what = format!("intermediate {}", intermediate.subject);
            findings.push(authority(known, &what, intermediate, now, &INTERMEDIATE).remedy_unless_passed(
                "issue an intermediate anew (with `portcullis ca renew --dir CA` for a CA of Portcullis), well before its end",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::skipped("no chain has an intermediate certificate"));
    }
    findings
}

pub(super) fn root_time(known: &[&Known], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for known in known {
        let roots = roots(known);
        if roots > MOST_CERTIFICATES {
            findings.push(too_many(known, roots));
            continue;
        }
        for bundle in &known.certs.trust_bundles {
            for root in &bundle.root_certs {
                let what = format!("root {} of {}", root.subject, bundle.trust_domain);
                findings.push(authority(known, &what, root, now, &ROOT).remedy_unless_passed(
                    "rotate the root (`portcullis ca rotate-root start --dir CA`, docs/guides/rotate-root.md); one that no leaf uses can be taken out of the bundle",
                ));
            }
        }
    }
    findings
}

fn roots(known: &Known) -> usize {
    known.certs.trust_bundles.iter().map(|bundle| bundle.root_certs.len()).sum()
}

fn too_many(known: &Known, shown: usize) -> Finding {
    Finding::unchecked(
        Some(known),
        format!("it shows {shown} certificates of CAs, and at most {MOST_CERTIFICATES} are looked at"),
    )
    .remedy("take those that no peer needs out of its bundles".to_owned())
}

fn authority(known: &Known, what: &str, certificate: &Certificate, now: Timestamp, limits: &Limits) -> Finding {
    let (Some(from), Some(until)) = (certificate.valid_from, certificate.expiration_time) else {
        return Finding::unchecked(Some(known), format!("the proxy does not say when the {what} is valid"));
    };
    let (left, lifetime) = (until.seconds_since(now), until.seconds_since(from));
    if now > until {
        return Finding::failed(
            Some(known),
            format!("{what} expired {} ago, at {until}", length(now.seconds_since(until))),
        );
    }
    if now < from {
        return Finding::failed(Some(known), format!("{what} is not valid before {from}; compare the clocks"));
    }
    let message = format!("{what} ends in {}, at {until}", length(left));
    if left < limits.fails.min(lifetime / 10) {
        return Finding::failed(Some(known), message);
    }
    if left < limits.warns.min(lifetime / 3) {
        return Finding::warning(Some(known), message);
    }
    Finding::passed(Some(known), message)
}

impl Finding {
    fn remedy_unless_passed(self, remedy: &str) -> Self {
        if self.state == State::Passed { self } else { self.remedy(remedy.to_owned()) }
    }
}

/// The sidecars that have roots of a trust domain, and who has which of them.
#[derive(Default)]
struct Domain<'a> {
    holders: Vec<&'a Known>,
    roots: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

/// Each trust domain apart: every sidecar that has roots of it has the same.
pub(super) fn bundles(known: &[&Known]) -> Vec<Finding> {
    let mut domains: BTreeMap<&str, Domain<'_>> = BTreeMap::new();
    let mut findings = Vec::new();
    for known in known {
        let roots = roots(known);
        if roots > MOST_CERTIFICATES || known.certs.trust_bundles.len() > MOST_CERTIFICATES {
            findings.push(too_many(known, roots));
            continue;
        }
        for bundle in &known.certs.trust_bundles {
            let domain = domains.entry(&bundle.trust_domain).or_default();
            domain.holders.push(known);
            for root in &bundle.root_certs {
                domain.roots.entry(&root.pem).or_default().insert(&known.label);
            }
        }
    }
    for (name, Domain { holders, roots }) in &domains {
        if holders.len() > 1 {
            findings.extend(holders.iter().map(|known| bundle(name, roots, known)));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::skipped("no trust domain has roots in two proxies: there is nothing to compare"));
    }
    findings
}

fn bundle(domain: &str, roots: &BTreeMap<&str, BTreeSet<&str>>, known: &Known) -> Finding {
    let missing: Vec<String> = roots
        .values()
        .filter(|holders| !holders.contains(known.label.as_str()))
        .map(|holders| list(&holders.iter().collect::<Vec<_>>(), 3))
        .collect();
    if missing.is_empty() {
        return Finding::passed(Some(known), format!("it has the {} of {domain} that all have", count(roots.len())));
    }
    Finding::failed(Some(known), format!("it lacks {} of {domain}", count(missing.len())))
        .why(missing.into_iter().map(|holders| format!("{holders} trusts a root that it does not trust")))
        .remedy(
            "give all proxies the same bundle; while a root is rotated, wait until all have both (`portcullis ca rotate-root status --dir CA`)"
                .to_owned(),
        )
}

fn count(roots: usize) -> String {
    crate::text::count(roots as u64, "root")
}

pub(super) fn source(known: &[&Known], now: Timestamp) -> Vec<Finding> {
    let of = |known: &&Known| {
        let Some(status) = &known.status else { return Finding::too_old(known) };
        let source = &status.identity;
        let Some(kind) = source.kind.as_deref() else {
            return Finding::failed(Some(known), "no identity is configured".to_owned())
                .remedy("set `identity` in its configuration".to_owned());
        };
        let name = if kind == "files" { "identity.files" } else { source.name.as_str() };
        let Some(problem) = &source.problem else {
            let at = source.renewed_at.map_or_else(String::new, |at| format!(", certificate in force since {at}"));
            return Finding::passed(Some(known), format!("{name}{at}"));
        };
        let since =
            problem.since.map_or_else(String::new, |since| format!(" for {}", length(now.seconds_since(since))));
        let (message, remedy) = if kind == "files" {
            (
                format!("{name}: newer files are refused{since}; those from before stay in force"),
                "correct the files; certificate, key and bundle are one set",
            )
        } else {
            let attempts = source.consecutive_failures;
            (
                format!("{name} gives no certificate{since}; attempts that failed: {attempts}"),
                "see whether it runs and can be reached (`portcullis ca status --dir CA`), and its log",
            )
        };
        Finding::failed(Some(known), message).why(problem.message.lines().map(str::to_owned)).remedy(remedy.to_owned())
    };
    known.iter().map(of).collect()
}
