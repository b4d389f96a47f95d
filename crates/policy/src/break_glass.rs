//! Break-glass: a PeerAuthentication that opens what is STRICT for a limited time, and ends by itself.
//!
//! The annotation `portcullis/until` makes a document one. It is not among the policies of which one is picked in each scope: until
//! its time it makes PERMISSIVE what a policy of the same or a wider scope has made STRICT, and changes nothing else. Afterwards it counts as
//! absent. Whatever is wrong with it is an error of the set: a mistyped time must not become a door that stays open.

use std::collections::BTreeMap;

use portcullis_yaml::{Cursor, Diagnostic, Position, Problems, printable};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::documentation::Expiry;
use crate::mode::Mode;
use crate::resource::PeerAuthentication;

/// The annotation that makes a document one: when it ends, in RFC 3339.
pub const UNTIL: &str = "portcullis/until";
/// The annotation that says why.
pub const REASON: &str = "portcullis/reason";
/// The annotation that says who wanted it.
pub const OWNER: &str = "portcullis/owner";
/// How far its end may be ahead: a day in seconds.
pub const MAX_SECONDS: i64 = 24 * 60 * 60;

/// A PeerAuthentication that holds for a limited time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BreakGlass {
    /// The document: PERMISSIVE, for a namespace, workloads or ports.
    pub policy: PeerAuthentication,
    /// When it ends, in Unix time.
    pub until: i64,
    /// Why.
    pub reason: String,
    /// Where its end is written.
    position: (u32, u32),
}

impl BreakGlass {
    /// Whether it still holds.
    #[must_use]
    pub const fn is_active(&self, now: i64) -> bool {
        now < self.until
    }

    /// Whether it is about this workload.
    #[must_use]
    pub fn covers(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.policy.namespace == namespace
            && self.policy.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// When it ends, in RFC 3339.
    #[must_use]
    pub fn until_text(&self) -> String {
        rfc3339(self.until)
    }

    /// What is wrong with its end at this time.
    pub(crate) fn check(&self, now: i64) -> Option<Diagnostic> {
        let ahead = self.until.saturating_sub(now);
        let message = format!(
            "{} is more than 24 h ahead of now ({}); break-glass is for a short time, and an exception that stays is a policy without {UNTIL}",
            self.until_text(),
            rfc3339(now)
        );
        let position = Position { line: self.position.0, column: self.position.1 };
        let mut found = Diagnostic::at(&self.policy.file, position, "break-glass-too-long", message);
        found.field = format!("metadata.annotations.{UNTIL}");
        (ahead > MAX_SECONDS).then_some(found)
    }
}

fn rfc3339(unix: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix).ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// What the annotations say.
pub(crate) struct Terms {
    until: i64,
    reason: String,
    position: (u32, u32),
}

impl Terms {
    pub(crate) fn of(self, mut policy: PeerAuthentication) -> BreakGlass {
        let Self { until, reason, position } = self;
        // It ends by itself, whatever else is written.
        policy.documentation.expires = Some(Expiry { text: rfc3339(until), unix: Some(until) });
        BreakGlass { policy, until, reason, position }
    }
}

/// Reads the annotations of a document. `None`: it is an ordinary one, or what is wrong has been reported.
pub(crate) fn read(root: &Cursor<'_>, problems: &mut Problems) -> Option<Terms> {
    let annotations = root.peek("metadata")?.peek("annotations")?;
    let at = annotations.peek(UNTIL)?;
    let text = at.string(problems)?;
    let until = OffsetDateTime::parse(text, &Rfc3339).ok();
    if until.is_none() {
        let message = format!(
            "\"{}\" is not an RFC 3339 time such as 2026-01-31T12:00:00Z; without an end there is no break-glass",
            printable(text)
        );
        at.report("break-glass-until", message, problems);
    }
    let reason = annotations.peek(REASON).and_then(|at| at.string(problems)).map(str::trim);
    let reason = reason.filter(|text| !text.is_empty()).map(str::to_owned);
    if reason.is_none() {
        at.report("break-glass-no-reason", format!("break-glass needs the annotation {REASON}: say why"), problems);
    }
    let position = at.position();
    Some(Terms { until: until?.unix_timestamp(), reason: reason?, position: (position.line, position.column) })
}

/// Whether the document does what break-glass may do: open, and nothing else.
pub(crate) fn check(root: &Cursor<'_>, policy: &PeerAuthentication, problems: &mut Problems) {
    let modes = policy.mode.into_iter().map(Some).chain(policy.ports.values().copied());
    let is_open = policy.mode.is_some() || !policy.ports.is_empty();
    if !is_open || modes.into_iter().any(|mode| mode != Some(Mode::Permissive)) {
        let message = format!(
            "with {UNTIL} each mode is PERMISSIVE, and there is one: it opens for a time, and does nothing else"
        );
        root.report("break-glass-mode", message, problems);
    }
    if policy.dry_run {
        let message = format!("istio.io/dry-run and {UNTIL} exclude each other; remove one");
        root.report("break-glass-dry-run", message, problems);
    }
}
