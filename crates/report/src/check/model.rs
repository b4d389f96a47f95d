//! What checks come to.

use std::collections::HashMap;

use serde::Serialize;

use super::facts::Known;
use super::id::Id;
use crate::text::{clean, clean_long};

/// What a check comes to, from best to worst.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There is nothing of that kind.
    Skipped,
    /// It is as it should be.
    Passed,
    /// Worth a look.
    Warning,
    /// It could not be checked.
    Unchecked,
    /// It is wrong.
    Failed,
}

/// One thing that a check found.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it comes to.
    pub state: State,
    /// The sidecars, as `cart.shop`, or the addresses of those that did not answer; empty if it is about none.
    pub proxies: Vec<String>,
    /// What.
    pub message: String,
    /// Why, one reason a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// What to do: a command to type, or what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// `file:line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// A check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The heading that it is under.
    pub category: &'static str,
    /// Its stable name.
    pub name: &'static str,
    /// What is true if it passes.
    pub title: &'static str,
    /// The worst of its findings; skipped if there are none.
    pub state: State,
    /// What it found; those that are the same for several sidecars are one.
    pub findings: Vec<Finding>,
    /// Where the reference explains it.
    pub documentation: String,
    /// Which one it is.
    #[serde(skip)]
    pub id: Id,
}

/// What all checks come to, from best to worst.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CheckResult {
    /// Nothing is wrong.
    Well,
    /// Nothing is wrong, but something is worth a look.
    Warnings,
    /// Something could not be checked.
    Unchecked,
    /// A sidecar did not answer.
    Unanswered,
    /// A certificate has expired, or is about to.
    Expired,
    /// Something else is wrong.
    Failed,
}

/// What checks come to: the worst of them. What is proven comes before what is unknown.
#[must_use]
pub fn overall(checks: &[Check]) -> CheckResult {
    let of = |check: &Check| match (check.state, check.id) {
        (State::Skipped | State::Passed, _) => CheckResult::Well,
        (State::Warning, _) => CheckResult::Warnings,
        (State::Unchecked, _) => CheckResult::Unchecked,
        (State::Failed, Id::ProxyAnswers) => CheckResult::Unanswered,
        (State::Failed, Id::CertificateTime | Id::IntermediateTime | Id::RootTime) => CheckResult::Expired,
        (State::Failed, _) => CheckResult::Failed,
    };
    checks.iter().map(of).max().unwrap_or(CheckResult::Unchecked)
}

/// The most reasons that are shown.
const MOST_REASONS: usize = 20;

impl Finding {
    fn new(state: State, about: Option<&Known>, message: String) -> Self {
        let proxies = about.map(|known| known.label.clone()).into_iter().collect();
        Self { state, proxies, message, why: Vec::new(), remedy: None, location: None }
    }

    pub(super) fn skipped(message: &str) -> Self {
        Self::new(State::Skipped, None, message.to_owned())
    }

    pub(super) fn passed(about: Option<&Known>, message: String) -> Self {
        Self::new(State::Passed, about, message)
    }

    pub(super) fn warning(about: Option<&Known>, message: String) -> Self {
        Self::new(State::Warning, about, message)
    }

    pub(super) fn unchecked(about: Option<&Known>, message: String) -> Self {
        Self::new(State::Unchecked, about, message)
    }

    pub(super) fn failed(about: Option<&Known>, message: String) -> Self {
        Self::new(State::Failed, about, message)
    }

    /// A sidecar of a version that does not have what is asked for.
    pub(super) fn too_old(about: &Known) -> Self {
        let version = if about.proxy.version.is_empty() { "unknown" } else { &about.proxy.version };
        Self::unchecked(
            Some(about),
            format!("the proxy does not say: its version ({version}) is older than this command"),
        )
        .remedy("update the proxy".to_owned())
    }

    pub(super) fn why(mut self, reasons: impl IntoIterator<Item = String>) -> Self {
        let mut reasons = reasons.into_iter();
        self.why.extend(reasons.by_ref().take(MOST_REASONS));
        let more = reasons.count();
        if more > 0 {
            self.why.push(format!("and {more} more"));
        }
        self
    }

    pub(super) fn remedy(mut self, remedy: String) -> Self {
        self.remedy = Some(remedy);
        self
    }

    pub(super) fn at(mut self, location: Option<String>) -> Self {
        self.location = location;
        self
    }

    /// Sidecars choose their names and what they say.
    fn cleaned(self) -> Self {
        Self {
            state: self.state,
            proxies: self.proxies.iter().map(|name| clean(name)).collect(),
            message: clean_long(&self.message),
            why: self.why.iter().map(|reason| clean_long(reason)).collect(),
            remedy: self.remedy.map(|remedy| clean_long(&remedy)),
            location: self.location.map(|location| clean_long(&location)),
        }
    }
}

impl Check {
    pub(super) fn new(id: Id, findings: Vec<Finding>) -> Self {
        // What is said, and where it is in the list; a sidecar may say very much.
        let mut known: HashMap<(bool, Finding), usize> = HashMap::new();
        let mut merged: Vec<Finding> = Vec::new();
        for mut finding in findings.into_iter().map(Finding::cleaned) {
            let proxies = std::mem::take(&mut finding.proxies);
            let index = *known.entry((proxies.is_empty(), finding.clone())).or_insert(merged.len());
            match merged.get_mut(index) {
                Some(first) => first.proxies.extend(proxies),
                None => merged.push(Finding { proxies, ..finding }),
            }
        }
        merged.iter_mut().for_each(|finding| finding.proxies.sort());
        // The worst first.
        merged.sort_by_key(|finding| std::cmp::Reverse(finding.state));
        Self {
            category: id.category().name(),
            name: id.name(),
            title: id.title(),
            state: merged.iter().map(|finding| finding.state).max().unwrap_or(State::Skipped),
            findings: merged,
            documentation: id.documentation(),
            id,
        }
    }
}
