//! The processes: who answers, is ready, runs what it should, and knows the time.

use std::collections::BTreeSet;

use portcullis_api::ConfigChange;

use super::facts::{Facts, Known, Sidecar};
use super::model::Finding;
use crate::text::length;

/// Certificates are backdated by a minute: whose clock is later than that refuses a new one.
const SKEW_FAILS: u64 = 60;
/// Times of logs and ledgers can no longer be compared.
const SKEW_WARNS: u64 = 5;

pub(super) fn answers(facts: &Facts) -> Vec<Finding> {
    if facts.sidecars.is_empty() {
        return vec![Finding::unchecked(None, "no proxy was asked".to_owned())];
    }
    facts.sidecars.iter().map(answer).collect()
}

fn answer(sidecar: &Sidecar) -> Finding {
    match &sidecar.answer {
        Ok(known) => Finding::passed(Some(known), "it answers".to_owned()),
        Err(why) => {
            let remedy = if why.is_other {
                "name the admin address of a proxy of this version (`admin.listen` or `admin.socket`)"
            } else {
                "start the proxy, or correct its address; see its log, and `admin.listen` of its configuration"
            };
            let mut finding = Finding::failed(None, why.message.clone()).remedy(remedy.to_owned());
            finding.proxies.push(sidecar.label.clone());
            finding
        }
    }
}

pub(super) fn ready(known: &[&Known]) -> Vec<Finding> {
    let of = |known: &&Known| {
        let Some(status) = &known.status else { return Finding::too_old(known) };
        if status.pending.is_empty() {
            return Finding::passed(Some(known), "it is ready".to_owned());
        }
        Finding::failed(Some(known), format!("it is not ready; state {}", known.proxy.state))
            .why(status.pending.iter().map(|what| format!("pending: {what}")))
            .remedy("see its log, and `portcullis wait` for how it goes on".to_owned())
    };
    known.iter().map(of).collect()
}

pub(super) fn config(known: &[&Known]) -> Vec<Finding> {
    let of = |known: &&Known| {
        let Some(status) = &known.status else { return Finding::too_old(known) };
        let file = &status.config_file;
        match file.change {
            ConfigChange::Unchanged => Finding::passed(Some(known), format!("{} did not change", file.source)),
            ConfigChange::Changed => {
                let message = format!("{} has changed since the start, and is not in force", file.source);
                Finding::warning(Some(known), message)
                    .remedy(format!("check it (`portcullis config check -c {}`), then restart the proxy", file.source))
                    .at(Some(file.source.clone()))
            }
            ConfigChange::Unreadable => {
                let message = format!("{} cannot be read any more, so the next start fails", file.source);
                let remedy = format!("check it: `portcullis config check -c {}`", file.source);
                Finding::warning(Some(known), message).why(file.problem.clone()).remedy(remedy)
            }
            ConfigChange::Unknown => Finding::unchecked(Some(known), "the proxy does not say".to_owned()),
        }
    };
    known.iter().map(of).collect()
}

pub(super) fn versions(known: &[&Known], own: &str) -> Vec<Finding> {
    let all: BTreeSet<&str> = known.iter().map(|known| known.proxy.version.as_str()).chain([own]).collect();
    let of = |known: &&Known| {
        let version = if known.proxy.version.is_empty() { "unknown" } else { &known.proxy.version };
        if all.len() == 1 {
            return Finding::passed(Some(known), format!("version {version}"));
        }
        Finding::warning(Some(known), format!("version {version}; this command is of version {own}"))
            .remedy("update the older ones: sidecars first, then commands".to_owned())
    };
    known.iter().map(of).collect()
}

pub(super) fn clocks(known: &[&Known]) -> Vec<Finding> {
    let of = |known: &&Known| {
        let theirs = known.proxy.now;
        // It answered at some moment of this second or between.
        let (ahead, behind) = (theirs.seconds_since(known.answered_at), known.asked_at.seconds_since(theirs));
        let (skew, direction) = if ahead > 0 { (ahead, "ahead of") } else { (behind, "behind") };
        // Whole seconds are compared.
        if skew <= 1 {
            return Finding::passed(Some(known), "its clock agrees with the one here".to_owned());
        }
        let message = format!("its clock is {} {direction} the one here", length(skew));
        let remedy = "synchronise the clocks of the hosts (`timedatectl set-ntp true`, chrony)".to_owned();
        if skew > SKEW_FAILS {
            let why =
                "a certificate that was just issued is not valid yet there, or an expired one still is".to_owned();
            return Finding::failed(Some(known), message).why([why]).remedy(remedy);
        }
        if skew > SKEW_WARNS {
            return Finding::warning(Some(known), message).remedy(remedy);
        }
        Finding::passed(Some(known), message)
    };
    known.iter().map(of).collect()
}
