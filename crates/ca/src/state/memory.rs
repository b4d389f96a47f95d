//! The state in memory: the effect of each record, and the checks before it.

use std::collections::BTreeMap;

use portcullis_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use super::facts::{Identity, Issuance, IssuanceRefusal, Report, UsedToken};
use super::instances::{Instance, Instances, Line};
use super::joins::{self, JoinGrant, JoinRefusal, Joins};
use crate::csr::KeyHash;
use crate::join::{JoinNumber, SecretHash};
use crate::token::TokenNumber;

/// Records are kept for so many seconds after they expire, since a clock may be set back.
const FORGET_AFTER: i64 = 3600;
/// How many days with forgotten tokens are remembered; about three years.
const MAX_FORGOTTEN_DAYS: usize = 1000;

/// Records the expiry of a forgotten token. Returns false, for `retain`.
fn note_forgotten(forgotten: &mut BTreeMap<i64, i64>, until: i64) -> bool {
    let last = forgotten.entry(day(until)).or_insert(until);
    *last = until.max(*last);
    if forgotten.len() > MAX_FORGOTTEN_DAYS {
        forgotten.pop_first();
    }
    false
}

const fn day(unix: i64) -> i64 {
    unix.div_euclid(24 * 3600)
}

/// A record of the journal. The names are the format on disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Record {
    Issued {
        id: String,
        key: String,
        serial: String,
        not_after: i64,
        token: Option<(String, i64)>,
        /// Empty in records from before roots were stored.
        #[serde(default)]
        anchor: String,
        /// Absent, like the next two, in records from before instances were distinguished.
        #[serde(default)]
        instance: Option<String>,
        #[serde(default)]
        at: i64,
        #[serde(default, rename = "told")]
        bundle_digest: Option<String>,
    },
    /// An old record of an identity's bundles. It does not name the instance.
    Bundle {
        id: String,
        digest: String,
    },
    #[serde(rename = "Told")]
    BundleReported {
        id: String,
        instance: String,
        until: i64,
        digest: String,
        at: i64,
    },
    /// The next three are of join tokens.
    JoinAdded(joins::Line),
    JoinUsed {
        number: String,
        left: u32,
    },
    JoinRevoked {
        number: String,
    },
}

/// The state as a snapshot writes it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    tokens: Vec<(String, i64)>,
    keys: Vec<(String, String, i64)>,
    /// The third field is from before instances were distinguished.
    identities: Vec<(String, i64, Option<String>)>,
    /// ID, root, end. Absent in old files.
    #[serde(default)]
    below: Option<Vec<(String, String, i64)>>,
    /// Absent in old files.
    #[serde(default)]
    instances: Option<Vec<Line>>,
    /// Absent in old files: the instance of each key that no instance is named after.
    #[serde(default)]
    renewed: Vec<(String, String)>,
    /// Absent in old files; see [`Memory::forgotten`].
    #[serde(default)]
    forgotten: Vec<i64>,
    /// Absent in old files.
    #[serde(default)]
    joins: Vec<joins::Line>,
}

/// Who holds a key.
#[derive(Debug)]
struct Holder {
    id: SpiffeId,
    until: i64,
    instance: KeyHash,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    tokens: BTreeMap<TokenNumber, i64>,
    /// For each day in which tokens ended that were forgotten, the last of these ends. What ends on that day by then may have been
    /// used, and would be good again after a clock that was ahead. By day, so that one which was ahead by a year, and in
    /// use, does not block all tokens until then.
    forgotten: BTreeMap<i64, i64>,
    keys: BTreeMap<KeyHash, Holder>,
    identities: BTreeMap<SpiffeId, Identity>,
    instances: Instances,
    joins: Joins,
}

impl Memory {
    pub(super) fn check(&self, issuance: &Issuance, now_unix: i64) -> Result<(), IssuanceRefusal> {
        if issuance.token.is_some_and(|token| self.is_used(token.number, token.expires_unix)) {
            return Err(IssuanceRefusal::TokenUsed);
        }
        match self.keys.get(&issuance.key) {
            Some(holder) if holder.id != issuance.id && holder.until >= now_unix => {
                Err(IssuanceRefusal::KeyHeld(holder.id.clone()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_used(&self, number: TokenNumber, until: i64) -> bool {
        self.forgotten.get(&day(until)).is_some_and(|last| until <= *last) || self.tokens.contains_key(&number)
    }

    /// The instance that a key is of.
    fn instance(&self, key: &KeyHash, id: &SpiffeId) -> Option<KeyHash> {
        self.keys.get(key).filter(|holder| holder.id == *id).map(|holder| holder.instance)
    }

    fn hold(&mut self, key: KeyHash, id: &SpiffeId, until: i64, instance: KeyHash) {
        let known = self.keys.get(&key).filter(|holder| holder.id == *id).map_or(until, |holder| holder.until);
        self.keys.insert(key, Holder { id: id.clone(), until: known.max(until), instance });
    }

    pub(super) fn issued(&mut self, issuance: &Issuance, now_unix: i64) -> Record {
        let Issuance { id, key, previous, .. } = issuance;
        let known = previous.and_then(|previous| self.instance(&previous, id));
        let instance = known.or_else(|| self.instance(key, id)).unwrap_or(*key);
        self.issued_to(instance, issuance, now_unix)
    }

    fn issued_to(&mut self, instance: KeyHash, issuance: &Issuance, now_unix: i64) -> Record {
        let Issuance { id, key, previous: _, bundle_digest, serial, not_after_unix, anchor, token } = issuance;
        if let Some(token) = token {
            self.tokens.insert(token.number, token.expires_unix);
        }
        self.hold(*key, id, *not_after_unix, instance);
        self.instances.certified(instance, id, *not_after_unix, now_unix, bundle_digest.as_deref());
        let identity = self.identities.entry(id.clone()).or_default();
        identity.not_after_unix = identity.not_after_unix.max(*not_after_unix);
        let below = identity.below.entry(anchor.clone()).or_default();
        *below = (*below).max(*not_after_unix);
        Record::Issued {
            id: id.to_string(),
            key: key.to_string(),
            serial: serial.clone(),
            not_after: *not_after_unix,
            token: token.map(|token| (token.number.to_string(), token.expires_unix)),
            anchor: anchor.clone(),
            instance: Some(instance.to_string()),
            at: now_unix,
            bundle_digest: bundle_digest.clone(),
        }
    }

    /// Records a report. `None` if there is nothing to persist. An unknown certificate also belongs to an instance.
    pub(super) fn report(&mut self, report: &Report, now_unix: i64) -> Option<Record> {
        let Report { id, key, not_after_unix: until, digest, since_unix, connections } = report;
        if self.keys.get(key).is_some_and(|holder| holder.id != *id) {
            // This key was certified for another identity, so the report is ignored.
            return None;
        }
        let instance = self.instance(key, id).unwrap_or_else(|| {
            self.hold(*key, id, *until, *key);
            self.instances.certified(*key, id, *until, 0, None);
            *key
        });
        if let Some(connections) = connections {
            self.instances.connected(instance, now_unix, connections);
        }
        self.instances.seen(instance, now_unix, digest, *since_unix).then(|| Record::BundleReported {
            id: id.to_string(),
            instance: instance.to_string(),
            until: *until,
            digest: digest.clone(),
            at: now_unix,
        })
    }

    pub(super) fn add_join(&mut self, grant: JoinGrant) -> Result<Record, JoinRefusal> {
        self.joins.add(grant).map(Record::JoinAdded)
    }

    /// Checks a join token and takes a use of it.
    pub(super) fn join(
        &mut self,
        number: JoinNumber,
        secret: &SecretHash,
        ids: &[SpiffeId],
        now_unix: i64,
    ) -> Result<(JoinGrant, Record), JoinRefusal> {
        let grant = self.joins.check(number, secret, ids, now_unix)?.clone();
        let left = self.joins.take(number).ok_or(JoinRefusal::Unknown)?;
        Ok((grant, Record::JoinUsed { number: number.to_string(), left }))
    }

    pub(super) fn check_join(
        &self,
        number: JoinNumber,
        secret: &SecretHash,
        ids: &[SpiffeId],
        now_unix: i64,
    ) -> Result<JoinGrant, JoinRefusal> {
        self.joins.check(number, secret, ids, now_unix).cloned()
    }

    pub(super) fn revoke_join(&mut self, number: JoinNumber) -> Result<Record, JoinRefusal> {
        let known = self.joins.revoke(number);
        known.then(|| Record::JoinRevoked { number: number.to_string() }).ok_or(JoinRefusal::Unknown)
    }

    pub(super) fn joins(&self) -> Vec<JoinGrant> {
        self.joins.all().cloned().collect()
    }

    pub(super) const fn instances(&self) -> &BTreeMap<KeyHash, Instance> {
        self.instances.all()
    }

    pub(super) const fn identities(&self) -> &BTreeMap<SpiffeId, Identity> {
        &self.identities
    }

    /// Replays a record. Idempotent. `None` if the record is invalid.
    pub(super) fn replay(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Issued { id, key, serial, not_after, token, anchor, instance, at, bundle_digest } => {
                let token = match token {
                    Some((number, expires_unix)) => {
                        Some(UsedToken { number: TokenNumber::parse(&number)?, expires_unix })
                    }
                    None => None,
                };
                let (id, key) = (SpiffeId::parse(&id).ok()?, KeyHash::parse(&key)?);
                // A certificate in an old record counts as an instance without a report.
                let instance = instance.map_or(Some(key), |name| KeyHash::parse(&name))?;
                let issuance = Issuance {
                    id,
                    key,
                    previous: None,
                    bundle_digest,
                    serial,
                    not_after_unix: not_after,
                    anchor,
                    token,
                };
                self.issued_to(instance, &issuance, at);
            }
            Record::Bundle { id, digest: _ } => {
                SpiffeId::parse(&id).ok()?;
            }
            Record::BundleReported { id, instance, until, digest, at } => {
                let (id, instance) = (SpiffeId::parse(&id).ok()?, KeyHash::parse(&instance)?);
                if self.keys.get(&instance).is_none_or(|holder| holder.id != id) {
                    self.hold(instance, &id, until, instance);
                }
                self.instances.certified(instance, &id, until, at, Some(&digest));
            }
            Record::JoinAdded(line) => self.joins.replay_added(&line)?,
            Record::JoinUsed { number, left } => self.joins.replay_used(&number, left)?,
            Record::JoinRevoked { number } => self.joins.replay_revoked(&number)?,
        }
        Some(())
    }

    pub(super) fn forget(&mut self, now_unix: i64) {
        let kept = |until: i64| until.saturating_add(FORGET_AFTER) >= now_unix;
        let forgotten = &mut self.forgotten;
        self.tokens.retain(|_, until| kept(*until) || note_forgotten(forgotten, *until));
        self.keys.retain(|_, holder| kept(holder.until));
        self.instances.retain(kept);
        self.joins.retain(kept);
        self.identities.retain(|_, identity| {
            identity.below.retain(|_, until| kept(*until));
            kept(identity.not_after_unix)
        });
    }

    pub(super) fn image(&self) -> Image {
        let key = |(key, holder): (&KeyHash, &Holder)| (key.to_string(), holder.id.to_string(), holder.until);
        let identity = |(id, known): (&SpiffeId, &Identity)| (id.to_string(), known.not_after_unix, None);
        let renewed = self.keys.iter().filter(|(key, holder)| **key != holder.instance);
        Image {
            tokens: self.tokens.iter().map(|(number, until)| (number.to_string(), *until)).collect(),
            keys: self.keys.iter().map(key).collect(),
            identities: self.identities.iter().map(identity).collect(),
            below: Some(
                self.identities
                    .iter()
                    .flat_map(|(id, known)| {
                        known.below.iter().map(|(root, until)| (id.to_string(), root.clone(), *until))
                    })
                    .collect(),
            ),
            instances: Some(self.instances.lines()),
            renewed: renewed.map(|(key, holder)| (key.to_string(), holder.instance.to_string())).collect(),
            forgotten: self.forgotten.values().copied().collect(),
            joins: self.joins.lines(),
        }
    }

    pub(super) fn from_image(image: Image) -> Option<Self> {
        let mut memory = Self { joins: Joins::from_lines(&image.joins)?, ..Self::default() };
        for until in image.forgotten {
            note_forgotten(&mut memory.forgotten, until);
        }
        for (number, until) in image.tokens {
            memory.tokens.insert(TokenNumber::parse(&number)?, until);
        }
        for (key, id, until) in image.keys {
            let (key, id) = (KeyHash::parse(&key)?, SpiffeId::parse(&id).ok()?);
            if image.instances.is_none() {
                memory.instances.certified(key, &id, until, 0, None);
            }
            memory.keys.insert(key, Holder { id, until, instance: key });
        }
        if let Some(lines) = image.instances {
            memory.instances = Instances::from_lines(lines)?;
        }
        for (key, instance) in image.renewed {
            memory.keys.get_mut(&KeyHash::parse(&key)?)?.instance = KeyHash::parse(&instance)?;
        }
        for (id, not_after_unix, _) in image.identities {
            // Without a list of roots all that is known is that there is a certificate.
            let below = match (&image.below, not_after_unix) {
                (None, until) if until > 0 => BTreeMap::from([(String::new(), until)]),
                _ => BTreeMap::new(),
            };
            memory.identities.insert(SpiffeId::parse(&id).ok()?, Identity { not_after_unix, below });
        }
        for (id, root, until) in image.below.unwrap_or_default() {
            memory.identities.get_mut(&SpiffeId::parse(&id).ok()?)?.below.insert(root, until);
        }
        Some(memory)
    }
}

#[cfg(test)]
mod tests;
