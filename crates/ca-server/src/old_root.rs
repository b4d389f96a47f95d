//! Live connections that rest on the root that a rotation drops, as sidecars report them.

use portcullis_ca::rotation::Rotation;
use portcullis_ca::state::Instance;
use portcullis_tls::utc;
use serde::{Deserialize, Serialize};

use crate::service::Services;

/// A report that is older than this many refresh hints, and than a minute, is ignored.
const STALE_AFTER_HINTS: i64 = 3;
const STALE_AFTER: i64 = 60;

/// Live connections that rest on the old root. Both sidecars of a connection count it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OldRootConnections {
    /// How many there are.
    pub live: u64,
    /// How many sidecars have any.
    pub sidecars: usize,
    /// How many instances with a valid certificate have not reported lately. Istio's agents never do.
    pub unknown: usize,
    /// The age of the oldest report that is counted, in seconds.
    pub oldest_report_seconds: Option<i64>,
    /// The sidecars that have any, and the instances that have not reported.
    pub by_instance: Vec<InstanceConnections>,
}

/// The connections of one instance.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceConnections {
    /// The SPIFFE ID.
    pub id: String,
    /// Which instance of it, in sixteen hexadecimal digits.
    pub instance: String,
    /// How many; `None` if that is unknown.
    pub live: Option<u64>,
    /// When it last reported, RFC 3339.
    pub reported: Option<String>,
}

/// The current reports; `None` if the roots cannot be read.
pub(crate) fn connections(services: &Services, rotation: &Rotation) -> Option<OldRootConnections> {
    let clock = &services.state.clock;
    let (old, now) = (rotation.old_anchors(clock).ok()?, clock.now_unix());
    let hint = i64::try_from(services.state.registrations.load().refresh_hint.as_secs()).unwrap_or(i64::MAX);
    let stale = hint.saturating_mul(STALE_AFTER_HINTS).max(STALE_AFTER);
    let mut found =
        OldRootConnections { live: 0, sidecars: 0, unknown: 0, oldest_report_seconds: None, by_instance: Vec::new() };
    for (key, instance) in services.store.instances() {
        if instance.not_after_unix < now {
            continue;
        }
        let reported = instance.connections.as_ref();
        let age = reported.map(|reported| now.saturating_sub(reported.unix).max(0));
        let live = reported.filter(|_| age.is_some_and(|age| age <= stale)).map(|reported| {
            let on_old = reported.by_root.iter().filter(|(root, _)| old.contains(*root));
            on_old.fold(0_u64, |sum, (_, count)| sum.saturating_add(*count))
        });
        match live {
            None => found.unknown = found.unknown.saturating_add(1),
            Some(live) => {
                found.oldest_report_seconds = found.oldest_report_seconds.max(age);
                found.live = found.live.saturating_add(live);
                found.sidecars = found.sidecars.saturating_add(usize::from(live > 0));
            }
        }
        if live != Some(0) {
            found.by_instance.push(InstanceConnections {
                id: instance.id.to_string(),
                instance: Instance::name(&key),
                live,
                reported: reported.map(|reported| utc(reported.unix)),
            });
        }
    }
    Some(found)
}
