//! Running instances of workloads. An identity may have several instances, each with its own set of trusted roots.
//!
//! An instance is a sequence of certificates: the first was requested with a token, each later one with its predecessor. It is
//! named after the key of its first certificate. Workloads that share a private key count as one instance.

use std::collections::BTreeMap;

use portcullis_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::csr::KeyHash;

/// How often an unchanged report is persisted, in seconds. A change is persisted at once.
const NOTE_EVERY: i64 = 600;

/// The trust bundles that an instance last reported.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReportedBundle {
    /// The digest of its trust bundles.
    pub digest: String,
    /// When it last reported them, in Unix time.
    pub unix: i64,
}

/// Live connections of an instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Connections {
    /// How many, by the root that the peer's chain ends at: see [`crate::Signer::anchor`].
    pub by_root: BTreeMap<String, u64>,
    /// When it reported them, in Unix time.
    pub unix: i64,
}

/// The recorded state of one instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Instance {
    /// Its identity.
    pub id: SpiffeId,
    /// Last second of the certificate that lasts longest, in Unix time.
    pub not_after_unix: i64,
    /// Its last report; `None` in records from before instances were distinguished.
    pub reported: Option<ReportedBundle>,
    /// When it last sent a request, in Unix time; up to ten minutes early after a restart; 0 if unknown.
    pub last_seen_unix: i64,
    /// Its live connections as it last reported them. Not on disk, so unknown after a restart of the CA.
    pub connections: Option<Connections>,
    /// When this was last persisted, in Unix time.
    persisted_unix: i64,
}

impl Instance {
    /// Sixteen hexadecimal digits, which identify an instance of this CA.
    #[must_use]
    pub fn name(key: &KeyHash) -> String {
        key.to_string().chars().take(16).collect()
    }

    pub(crate) const fn new(id: SpiffeId) -> Self {
        Self { id, not_after_unix: 0, reported: None, last_seen_unix: 0, connections: None, persisted_unix: 0 }
    }

    fn seen(&mut self, unix: i64, digest: Option<&str>) {
        self.last_seen_unix = self.last_seen_unix.max(unix);
        if let Some(digest) = digest
            && self.reported.as_ref().is_none_or(|reported| reported.unix <= unix)
        {
            self.reported = Some(ReportedBundle { digest: digest.to_owned(), unix });
        }
    }
}

/// A line of a snapshot: key, ID, expiry, last seen, report. A tuple, since the format on disk is an array.
pub(super) type Line = (String, String, i64, i64, Option<ReportedBundle>);

/// All of them, by the key of their first certificate.
#[derive(Debug, Default)]
pub(super) struct Instances(BTreeMap<KeyHash, Instance>);

impl Instances {
    pub(super) const fn all(&self) -> &BTreeMap<KeyHash, Instance> {
        &self.0
    }

    /// Records a certificate. An earlier instance with this name has ended.
    pub(super) fn certified(&mut self, name: KeyHash, id: &SpiffeId, until: i64, unix: i64, digest: Option<&str>) {
        let instance = self.0.entry(name).or_insert_with(|| Instance::new(id.clone()));
        if instance.id != *id {
            *instance = Instance::new(id.clone());
        }
        instance.not_after_unix = instance.not_after_unix.max(until);
        instance.seen(unix, digest);
        instance.persisted_unix = instance.persisted_unix.max(unix);
    }

    /// Records a report, and returns whether to persist it. Reports up to `since` no longer count.
    pub(super) fn seen(&mut self, name: KeyHash, unix: i64, digest: &str, since: i64) -> bool {
        let Some(instance) = self.0.get_mut(&name) else { return false };
        let known =
            instance.reported.as_ref().is_some_and(|reported| reported.digest == digest && reported.unix > since);
        instance.seen(unix, Some(digest));
        let news = !known || unix.saturating_sub(instance.persisted_unix) >= NOTE_EVERY;
        if news {
            instance.persisted_unix = unix;
        }
        news
    }

    /// Records the reported connections.
    pub(super) fn connected(&mut self, name: KeyHash, unix: i64, by_root: &BTreeMap<String, u64>) {
        if let Some(instance) = self.0.get_mut(&name) {
            instance.connections = Some(Connections { by_root: by_root.clone(), unix });
        }
    }

    pub(super) fn retain(&mut self, kept: impl Fn(i64) -> bool) {
        self.0.retain(|_, instance| kept(instance.not_after_unix));
    }

    pub(super) fn lines(&self) -> Vec<Line> {
        let line = |(name, one): (&KeyHash, &Instance)| {
            (name.to_string(), one.id.to_string(), one.not_after_unix, one.last_seen_unix, one.reported.clone())
        };
        self.0.iter().map(line).collect()
    }

    pub(super) fn from_lines(lines: Vec<Line>) -> Option<Self> {
        let mut all = BTreeMap::new();
        for (name, id, not_after_unix, last_seen_unix, reported) in lines {
            let id = SpiffeId::parse(&id).ok()?;
            let instance = Instance {
                id,
                not_after_unix,
                reported,
                last_seen_unix,
                connections: None,
                persisted_unix: last_seen_unix,
            };
            all.insert(KeyHash::parse(&name)?, instance);
        }
        Some(Self(all))
    }
}
