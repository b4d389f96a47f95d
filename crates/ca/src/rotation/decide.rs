//! Decides from the recorded state whether the next phase may start. Pure: no clock, no files.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_identity::SpiffeId;

use crate::csr::KeyHash;
use crate::state::{Identity, Instance};

/// A certificate counts as valid for so many seconds after it expires, since a peer's clock may be behind.
const SKEW: i64 = 60;
/// B must be published for this many refresh hints before it signs (SPIFFE Federation 4.1).
const HINTS: i64 = 3;

/// Why an identity or instance blocks the next phase.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockReason {
    /// It never reported its bundles. Istio's agents never do.
    Silent,
    /// Its last report has other bundles, or predates the published ones.
    OtherBundles,
    /// It has a valid certificate below the root that would be removed.
    Certificate,
}

impl BlockReason {
    /// The name in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::OtherBundles => "other-bundles",
            Self::Certificate => "certificate",
        }
    }
}

/// An identity or instance that the next phase would cut off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Blocker {
    /// The identity.
    pub id: SpiffeId,
    /// The instance; `None` if the reason applies to the identity as a whole.
    pub instance: Option<KeyHash>,
    /// Why.
    pub reason: BlockReason,
    /// Last second of the relevant certificate, in Unix time.
    pub until_unix: i64,
    /// The bundle digest of its last report.
    pub reported_digest: Option<String>,
    /// When it was last seen, in Unix time; 0 if unknown.
    pub last_seen_unix: i64,
}

/// Why the next phase may not start. At least one field is set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NotReady {
    /// These would be cut off.
    pub behind: Vec<Blocker>,
    /// The phase may not start for this many seconds, whatever is reported: B was published too recently, or certificates
    /// below the root that would be removed are still valid.
    pub seconds_left: i64,
}

/// Identities and instances whose reports are not required. A valid certificate below the old root still blocks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Assumed {
    /// All instances of these identities.
    pub ids: BTreeSet<SpiffeId>,
    /// These instances, as [`Instance::name`] names them.
    pub instances: BTreeSet<String>,
}

impl Assumed {
    fn covers(&self, key: &KeyHash, id: &SpiffeId) -> bool {
        self.ids.contains(id) || self.instances.contains(&Instance::name(key))
    }
}

/// The recorded state on which the decisions are based.
#[derive(Clone, Copy, Debug)]
pub struct RotationSnapshot<'a> {
    /// The recorded identities.
    pub identities: &'a BTreeMap<SpiffeId, Identity>,
    /// The recorded instances.
    pub instances: &'a BTreeMap<KeyHash, Instance>,
    /// The roots of B.
    pub new_anchors: &'a BTreeSet<String>,
    /// The digest of the published bundles.
    pub digest: &'a str,
    /// When B was published, in Unix time. Earlier reports do not count.
    pub published_unix: i64,
    /// Whose reports are not required.
    pub assumed: &'a Assumed,
    /// The current time, in Unix time.
    pub now_unix: i64,
}

impl RotationSnapshot<'_> {
    /// Instances with a valid certificate that have not reported the published bundles.
    fn not_reported(&self) -> impl Iterator<Item = Blocker> + '_ {
        self.instances.iter().filter_map(|(key, known)| {
            let reason = match &known.reported {
                Some(report) if report.digest == self.digest && report.unix > self.published_unix => return None,
                Some(_) => BlockReason::OtherBundles,
                None => BlockReason::Silent,
            };
            let counts = self.valid(known.not_after_unix) && !self.assumed.covers(key, &known.id);
            counts.then(|| Blocker {
                id: known.id.clone(),
                instance: Some(*key),
                reason,
                until_unix: known.not_after_unix,
                reported_digest: known.reported.as_ref().map(|report| report.digest.clone()),
                last_seen_unix: known.last_seen_unix,
            })
        })
    }

    /// Identities with a valid certificate below B, or below any other root.
    fn holders(&self, below_new: bool) -> impl Iterator<Item = Blocker> + '_ {
        self.identities.iter().filter_map(move |(id, known)| {
            let below = known.below.iter().filter(|(root, _)| self.new_anchors.contains(*root) == below_new);
            let until_unix = below.map(|(_, until)| *until).max().filter(|until| self.valid(*until))?;
            let own = self.instances.values().filter(|instance| instance.id == *id);
            let last_seen_unix = own.map(|instance| instance.last_seen_unix).max().unwrap_or_default();
            Some(Blocker {
                id: id.clone(),
                instance: None,
                reason: BlockReason::Certificate,
                until_unix,
                reported_digest: None,
                last_seen_unix,
            })
        })
    }

    const fn valid(&self, until: i64) -> bool {
        until.saturating_add(SKEW) >= self.now_unix
    }

    /// Seconds until all of these certificates have expired.
    fn seconds_left(&self, holders: &[Blocker]) -> i64 {
        let ends = holders.iter().map(|behind| behind.until_unix.saturating_add(SKEW).saturating_add(1));
        ends.max().map_or(0, |end| end.saturating_sub(self.now_unix).max(0))
    }
}

fn refused(behind: Vec<Blocker>, seconds_left: i64) -> Result<(), NotReady> {
    if behind.is_empty() && seconds_left == 0 { Ok(()) } else { Err(NotReady { behind, seconds_left }) }
}

/// Checks whether B may sign: it was published long enough ago, and every instance trusts it.
///
/// # Errors
/// Why not.
pub fn may_promote(seen: RotationSnapshot<'_>, refresh_hint: i64) -> Result<(), NotReady> {
    let from = seen.published_unix.saturating_add(refresh_hint.saturating_mul(HINTS));
    refused(seen.not_reported().collect(), from.saturating_sub(seen.now_unix).max(0))
}

/// Checks whether A may be removed: no certificate below it is valid, and every instance trusts B.
///
/// # Errors
/// Why not.
pub fn may_finish(seen: RotationSnapshot<'_>) -> Result<(), NotReady> {
    let mut behind: Vec<_> = seen.holders(false).collect();
    let left = seen.seconds_left(&behind);
    behind.extend(seen.not_reported());
    refused(behind, left)
}

/// Checks whether B may be withdrawn: no certificate below it is valid. Instances that trust both also trust A.
///
/// # Errors
/// Why not.
pub fn may_abort(seen: RotationSnapshot<'_>) -> Result<(), NotReady> {
    let behind: Vec<_> = seen.holders(true).collect();
    let left = seen.seconds_left(&behind);
    refused(behind, left)
}

#[cfg(test)]
mod tests;
