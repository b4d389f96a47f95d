//! Whether the next phase may begin: a decision about what the state knows, without clock or files.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_identity::SpiffeId;

use crate::csr::KeyHash;
use crate::state::{Identity, Instance};

/// A certificate counts as valid so long after its end, in seconds: the clock of a peer may be behind.
const SKEW: i64 = 60;
/// B is published for so many refresh hints before it signs (SPIFFE Federation 4.1).
const HINTS: i64 = 3;

/// What is lacking.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockReason {
    /// It never said which bundles it uses; Istio's agents never do.
    Silent,
    /// It last said that it uses others, or said it before they were published.
    OtherBundles,
    /// It has a certificate below the root that would be dropped.
    Certificate,
}

impl BlockReason {
    /// In a table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::OtherBundles => "other-bundles",
            Self::Certificate => "certificate",
        }
    }
}

/// Who would be hurt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Blocker {
    /// The identity.
    pub id: SpiffeId,
    /// Which of its instances; `None` for what is known of all of them together.
    pub instance: Option<KeyHash>,
    /// Why.
    pub reason: BlockReason,
    /// Last second of the certificate that counts, in Unix time.
    pub until_unix: i64,
    /// The digest that it last told.
    pub reported_digest: Option<String>,
    /// When it was last heard, in Unix time; 0 if that is not known.
    pub last_seen_unix: i64,
}

/// Why the next phase may not begin: at least one of the two.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NotReady {
    /// These would be hurt.
    pub behind: Vec<Blocker>,
    /// For so many seconds it may not, whoever says what: B is published for too short a time, or certificates below the root
    /// that is to go are valid.
    pub seconds_left: i64,
}

/// Whose word is not waited for. It does not help against a certificate that is valid.
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

/// What is known, and since when.
#[derive(Clone, Copy, Debug)]
pub struct RotationSnapshot<'a> {
    /// What the state knows of each identity,
    pub identities: &'a BTreeMap<SpiffeId, Identity>,
    /// and of each instance.
    pub instances: &'a BTreeMap<KeyHash, Instance>,
    /// The roots of B.
    pub new_anchors: &'a BTreeSet<String>,
    /// The digest of what is published now.
    pub digest: &'a str,
    /// Since when B is published, in Unix time. What was said up to then says nothing of it.
    pub published_unix: i64,
    /// Whose word is not waited for.
    pub assumed: &'a Assumed,
    /// In Unix time.
    pub now_unix: i64,
}

impl RotationSnapshot<'_> {
    /// Every instance with a valid certificate that has not said that it uses what is published.
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

    /// Everybody with a valid certificate below B, or below anything else.
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

    /// Until none of these certificates counts any more.
    fn seconds_left(&self, holders: &[Blocker]) -> i64 {
        let ends = holders.iter().map(|behind| behind.until_unix.saturating_add(SKEW).saturating_add(1));
        ends.max().map_or(0, |end| end.saturating_sub(self.now_unix).max(0))
    }
}

fn refused(behind: Vec<Blocker>, seconds_left: i64) -> Result<(), NotReady> {
    if behind.is_empty() && seconds_left == 0 { Ok(()) } else { Err(NotReady { behind, seconds_left }) }
}

/// Whether B may sign: it is published long enough, and everybody trusts it.
///
/// # Errors
/// Why not.
pub fn may_promote(seen: RotationSnapshot<'_>, refresh_hint: i64) -> Result<(), NotReady> {
    let from = seen.published_unix.saturating_add(refresh_hint.saturating_mul(HINTS));
    refused(seen.not_reported().collect(), from.saturating_sub(seen.now_unix).max(0))
}

/// Whether A may go: nobody has a certificate below it, and everybody trusts B.
///
/// # Errors
/// Why not.
pub fn may_finish(seen: RotationSnapshot<'_>) -> Result<(), NotReady> {
    let mut behind: Vec<_> = seen.holders(false).collect();
    let left = seen.seconds_left(&behind);
    behind.extend(seen.not_reported());
    refused(behind, left)
}

/// Whether B may go again: nobody has a certificate below it. Whoever trusts A and B trusts A.
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
