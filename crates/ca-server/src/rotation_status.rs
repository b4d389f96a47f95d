//! The status of a rotation, as `ca rotate-root` shows it.

use portcullis_ca::rotation::{Blocker, NotReady, Phase, Rotation};
use portcullis_ca::state::Instance;
use portcullis_tls::utc;
use serde::{Deserialize, Serialize};

use crate::old_root::OldRootConnections;
use crate::step::Step;

/// The status of a rotation.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// `none`, `started`, `promoted` or `finished`.
    pub phase: String,
    /// The phases so far with their beginnings. The last one is in force.
    pub phases: Vec<PhaseStart>,
    /// Since when the new root is published, RFC 3339.
    pub published_since: Option<String>,
    /// The digest of what is published.
    pub bundle_digest: String,
    /// The step that may follow.
    pub next: Option<Step>,
    /// The step may not follow for this many seconds, whatever is reported: the new root was published too recently, or
    /// certificates below the old one are valid.
    pub seconds_left: i64,
    /// When these are over, RFC 3339.
    pub not_before: Option<String>,
    /// Who would be cut off by it; with `refused`, by the requested step.
    pub behind: Vec<BlockerStatus>,
    /// Live connections that rest on the old root; after `finish`, those that it has ended. None without a rotation.
    #[serde(default)]
    pub old_root_connections: Option<OldRootConnections>,
    /// The time by the CA's clock, in Unix time.
    #[serde(default)]
    pub now_unix: i64,
    /// Why the step was not done. Nothing has changed then, unless it says otherwise.
    pub refused: Option<String>,
}

/// A phase and its beginning.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PhaseStart {
    /// Which.
    pub phase: Phase,
    /// RFC 3339.
    pub since: String,
}

/// An identity or instance that blocks the step.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockerStatus {
    /// The SPIFFE ID.
    pub id: String,
    /// Which instance of it, in sixteen hexadecimal digits; none for `certificate`, which is of all together.
    pub instance: Option<String>,
    /// `silent`, `other-bundles` or `certificate`.
    pub lack: String,
    /// The end of the certificate that counts, RFC 3339.
    pub until: String,
    /// When it was last seen, RFC 3339; up to ten minutes early after a restart of the CA.
    #[serde(rename = "heard")]
    pub last_seen: Option<String>,
    /// The bundle digest of its last report.
    #[serde(rename = "told")]
    pub reported_digest: Option<String>,
}

/// Why a step was not done.
pub(crate) enum StepError {
    NotReady(NotReady),
    Other(String),
}

impl From<NotReady> for StepError {
    fn from(refused: NotReady) -> Self {
        Self::NotReady(refused)
    }
}

impl From<String> for StepError {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

impl RotationStatus {
    /// Builds the status. `lacking` is what blocks the next step or, with `refused`, the requested one.
    pub(crate) fn new(
        rotation: Option<&Rotation>,
        digest: String,
        lacking: Option<StepError>,
        refused: bool,
        now: i64,
    ) -> Self {
        let mut status = Self {
            phase: rotation.map_or("none", |rotation| rotation.phase.name()).to_owned(),
            phases: rotation.map(phases).unwrap_or_default(),
            published_since: rotation.map(|rotation| utc(rotation.published_unix)),
            bundle_digest: digest,
            next: rotation.map(|rotation| Step::after(rotation.phase)),
            seconds_left: 0,
            not_before: None,
            behind: Vec::new(),
            old_root_connections: None,
            now_unix: now,
            refused: None,
        };
        let why = match lacking {
            None => None,
            Some(StepError::Other(why)) => Some(why),
            Some(StepError::NotReady(NotReady { behind, seconds_left: left })) => {
                status.seconds_left = left;
                status.not_before = (left > 0).then(|| utc(now.saturating_add(left)));
                status.behind = behind.iter().map(blocker_status).collect();
                Some(match behind.len() {
                    0 => format!("the new root was published too recently; try again in {left} s"),
                    count => format!("{count} would be cut off from others"),
                })
            }
        };
        status.refused = why.filter(|_| refused);
        status
    }
}

fn phases(rotation: &Rotation) -> Vec<PhaseStart> {
    let began = |(phase, unix): &(Phase, i64)| PhaseStart { phase: *phase, since: utc(*unix) };
    rotation.history().iter().map(began).collect()
}

fn blocker_status(behind: &Blocker) -> BlockerStatus {
    BlockerStatus {
        id: behind.id.to_string(),
        instance: behind.instance.as_ref().map(Instance::name),
        lack: behind.reason.name().to_owned(),
        until: utc(behind.until_unix),
        last_seen: Some(behind.last_seen_unix).filter(|unix| *unix > 0).map(utc),
        reported_digest: behind.reported_digest.clone(),
    }
}
