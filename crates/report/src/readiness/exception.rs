//! Documented exceptions: ports that a policy of their workload keeps below STRICT, with an owner, a reason and an end.
//!
//! `readiness`, `migrate` and the page have the same answer from here. A policy of the mesh or of a namespace is none: it is what a
//! migration begins with.

use portcullis_api::{DecidingPolicy, Mode, PortMode, Timestamp};
use serde::Serialize;

use crate::text::{clean, clean_long, length};

/// Who keeps a port below STRICT, why, and until when.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// The policy, `shop/web-published`.
    pub policy: String,
    /// Who wanted it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Until when, as it is written.
    pub expires: String,
    /// The moment at which it is over.
    pub expires_at: Timestamp,
}

/// Whether a policy of the workload decides the mode of the port, so that a policy of the namespace does not change it.
pub(crate) fn is_of_workload(mode: &PortMode) -> bool {
    ["workload", "port"].contains(&mode.decided_by.scope.as_str())
}

/// What the annotations lack; nothing if they document an exception that has not passed its end.
pub(crate) fn lacks(by: &DecidingPolicy, now: Timestamp) -> Vec<&'static str> {
    let missing = |is_missing: bool, word| is_missing.then_some(word);
    let end = match (&by.expires, by.expires_at) {
        (None, _) => Some("no end"),
        (Some(_), None) => Some("an end that is no date"),
        (Some(_), Some(at)) => missing(at <= now, "passed its end"),
    };
    [missing(by.owner.is_none(), "no owner"), missing(by.reason.is_none(), "no reason"), end]
        .into_iter()
        .flatten()
        .collect()
}

impl Exception {
    /// The exception that holds for a port with these modes at its sidecars: every one that is not STRICT must be documented. Of several,
    /// the one that ends first.
    #[must_use]
    pub fn of(modes: &[PortMode], now: Timestamp) -> Option<Self> {
        let weak = || modes.iter().filter(|mode| mode.mode != Mode::Strict);
        if !weak().all(|mode| is_of_workload(mode) && lacks(&mode.decided_by, now).is_empty()) {
            return None;
        }
        let by = weak().map(|mode| &mode.decided_by).min_by_key(|by| by.expires_at)?;
        Some(Self {
            policy: clean_long(&by.label()),
            owner: by.owner.as_deref().map(clean)?,
            reason: by.reason.as_deref().map(clean)?,
            expires: by.expires.as_deref().map(clean)?,
            expires_at: by.expires_at?,
        })
    }

    /// `shop-team, until 2099-01-01 (20d left)`.
    #[must_use]
    pub fn terms(&self, now: Timestamp) -> String {
        format!("{}, until {} ({} left)", self.owner, self.expires, length(self.expires_at.seconds_since(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(scope: &str, mode: Mode, expires_at: Option<i64>) -> PortMode {
        let decided_by = DecidingPolicy {
            scope: scope.to_owned(),
            owner: Some("team".to_owned()),
            reason: Some("why".to_owned()),
            expires: Some("a day".to_owned()),
            expires_at: expires_at.map(Timestamp::from_unix),
            ..DecidingPolicy::default()
        };
        PortMode { port: Some(80), mode, decided_by, server_first: false }
    }

    #[test]
    fn only_a_documented_policy_of_the_workload_is_an_exception_and_only_until_its_end() {
        let now = Timestamp::from_unix(100);
        let is = |modes: &[PortMode]| Exception::of(modes, now).is_some();
        assert!(is(&[mode("port", Mode::Permissive, Some(101))]));
        assert!(is(&[mode("workload", Mode::Disable, Some(101)), mode("mesh", Mode::Strict, None)]));
        assert!(!is(&[mode("port", Mode::Permissive, Some(100))]), "it is over");
        assert!(!is(&[mode("port", Mode::Permissive, None)]), "it never ends");
        for scope in ["namespace", "mesh", "default", "break-glass"] {
            assert!(!is(&[mode(scope, Mode::Permissive, Some(101))]), "{scope}");
        }
        assert!(!is(&[mode("mesh", Mode::Strict, Some(101))]), "it is STRICT");
        assert!(!is(&[mode("port", Mode::Permissive, Some(101)), mode("namespace", Mode::Permissive, Some(101))]));
        let mut anonymous = mode("port", Mode::Permissive, Some(101));
        anonymous.decided_by.owner = None;
        assert_eq!((is(&[anonymous.clone()]), lacks(&anonymous.decided_by, now)), (false, vec!["no owner"]));
    }

    #[test]
    fn the_exception_that_ends_first_counts() {
        let modes = [mode("port", Mode::Permissive, Some(500)), mode("workload", Mode::Permissive, Some(300))];
        let found = Exception::of(&modes, Timestamp::from_unix(100)).map(|it| it.terms(Timestamp::from_unix(100)));
        assert_eq!(found.as_deref(), Some("team, until a day (3m20s left)"));
    }
}
