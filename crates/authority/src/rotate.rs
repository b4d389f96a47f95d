//! The steps of a rotation, done by the CA that runs: only it knows what it has signed and what it was told.
//!
//! Order of each: decide, with nothing being signed; a line in the audit; the phase on disk, in one step; the phase in
//! force. A crash leaves the phase that is on disk, which the next start takes up.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use portcullis_ca::rotation::{Behind, Phase, Refused, Rotation, Seen, may_abort, may_finish, may_promote};
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_tls::{Clock, utc};
use serde::{Deserialize, Serialize};

use crate::reload;
use crate::service::Services;

/// The folder in which a new CA is handed over.
const NEXT: &str = "next";

/// What to do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Nothing; say where it stands.
    Status,
    /// Publish the root of the CA in `next/` too.
    Start,
    /// Sign with the new CA.
    Promote,
    /// Publish the new root alone.
    Finish,
    /// Go back: from `promoted` to `started`, from there to the old root alone.
    Abort,
}

/// A step, and whose word is not waited for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Request {
    /// Which.
    pub step: Step,
    /// SPIFFE IDs of callers that cannot say which bundles they use.
    pub assume: Vec<String>,
}

/// Where a rotation stands.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// `none`, `started`, `promoted` or `finished`.
    pub phase: String,
    /// Since when the new root is published, RFC 3339.
    pub published_since: Option<String>,
    /// The digest of what is published.
    pub bundle_digest: String,
    /// The step that may follow.
    pub next: Option<Step>,
    /// For so many seconds it may not, whoever has told what.
    pub seconds_left: i64,
    /// Who would be hurt by it; with `refused`, by the step that was asked for.
    pub behind: Vec<Waited>,
    /// Why the step was not done. Nothing has changed then, unless it says otherwise.
    pub refused: Option<String>,
}

/// An identity that is waited for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waited {
    /// Its SPIFFE ID.
    pub id: String,
    /// `silent`, `other-bundles` or `certificate`.
    pub lack: String,
    /// The end of the certificate that counts, RFC 3339.
    pub until: String,
    /// The digest that it last told.
    pub told: Option<String>,
}

/// Why a step was not done.
enum No {
    Decided(Refused),
    Other(String),
}

impl From<Refused> for No {
    fn from(refused: Refused) -> Self {
        Self::Decided(refused)
    }
}

impl From<String> for No {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

/// At a start: what is in force. What a crash has cut off of the last step is done.
pub(crate) fn resume(dir: &Path, domain: Option<&TrustDomain>) -> Result<reload::InForce, String> {
    match Rotation::load(dir).map_err(|error| error.to_string())? {
        None => reload::finish_pair(dir, domain)?,
        Some(rotation) if rotation.phase == Phase::Finished => {
            // Before files are replaced, it is known that what replaces them can be used.
            rotation.in_force(domain).map_err(|error| error.to_string())?;
            settle(dir, &rotation)?;
        }
        Some(_) => {}
    }
    reload::in_force(dir, domain)
}

fn settle(dir: &Path, rotation: &Rotation) -> Result<(), String> {
    rotation.settle(dir).and_then(|()| Rotation::remove(dir)).map_err(|error| error.to_string())
}

/// Takes a step, and says where it stands then.
pub(crate) fn step(services: &Services, request: &Request) -> Standing {
    let mut rotation = services.live.rotating();
    let done = assumed(&request.assume).map_err(No::from).and_then(|assumed| match request.step {
        Step::Status => Ok(()),
        Step::Start => start(services, &mut rotation),
        Step::Promote => promote(services, &mut rotation, &assumed),
        Step::Finish => finish(services, &mut rotation, &assumed),
        Step::Abort => abort(services, &mut rotation),
    });
    standing(services, rotation.as_ref(), done)
}

fn assumed(ids: &[String]) -> Result<BTreeSet<SpiffeId>, String> {
    ids.iter().map(|id| SpiffeId::parse(id).map_err(|error| format!("--assume {id}: {error}"))).collect()
}

fn domain(services: &Services) -> Option<TrustDomain> {
    services.live.registrations.load().trust_domain.clone()
}

fn start(services: &Services, rotation: &mut Option<Rotation>) -> Result<(), No> {
    if let Some(rotation) = rotation {
        return Err(format!("a rotation is on already; it is {}", rotation.phase.name()).into());
    }
    let (dir, domain) = (&services.dir, domain(services));
    let next = dir.join(NEXT);
    let (old, new) = (reload::files(dir, domain.as_ref())?, reload::files(&next, domain.as_ref())?);
    let now = Clock::system().now_unix();
    let begun = Rotation::start(old, new, domain.as_ref(), now).map_err(|error| error.to_string())?;
    enter(services, rotation, begun, "")?;
    // Its key is in the rotation now.
    if let Err(error) = std::fs::remove_dir_all(&next) {
        tracing::warn!(%error, folder = %next.display(), "cannot be removed; nothing reads it any more");
    }
    Ok(())
}

fn promote(services: &Services, current: &mut Option<Rotation>, assumed: &BTreeSet<SpiffeId>) -> Result<(), No> {
    let mut rotation = in_phase(current.as_ref(), Phase::Started, "promote")?;
    judge(services, &rotation, assumed, Step::Promote)?;
    rotation.phase = Phase::Promoted;
    enter(services, current, rotation, &names(assumed))
}

fn finish(services: &Services, current: &mut Option<Rotation>, assumed: &BTreeSet<SpiffeId>) -> Result<(), No> {
    // One that could not be brought to its end.
    let cut_off = current.as_ref().filter(|rotation| rotation.phase == Phase::Finished).cloned();
    let rotation = match cut_off {
        Some(rotation) => rotation,
        None => {
            let mut rotation = in_phase(current.as_ref(), Phase::Promoted, "finish")?;
            judge(services, &rotation, assumed, Step::Finish)?;
            rotation.phase = Phase::Finished;
            enter(services, current, rotation.clone(), &names(assumed))?;
            rotation
        }
    };
    settle(&services.dir, &rotation).map_err(|why| {
        format!("{why}\nthe new root alone is in force; say `finish` again to put its files in place")
    })?;
    *current = None;
    Ok(())
}

fn abort(services: &Services, current: &mut Option<Rotation>) -> Result<(), No> {
    let mut rotation = current.clone().ok_or_else(|| "no rotation is on".to_owned())?;
    match rotation.phase {
        Phase::Promoted => {
            rotation.phase = Phase::Started;
            enter(services, current, rotation, "back from promoted")
        }
        Phase::Started => {
            judge(services, &rotation, &BTreeSet::new(), Step::Abort)?;
            let signer = Arc::new(reload::signer(&services.dir, domain(services).as_ref())?);
            if signer.anchor() != rotation.old_anchor(domain(services).as_ref()).map_err(|error| error.to_string())? {
                return Err(
                    "root-cert.pem, ca-cert.pem: they are not those that the rotation began with; put them back"
                        .to_owned()
                        .into(),
                );
            }
            line(services, "none", "aborted")?;
            Rotation::remove(&services.dir).map_err(|error| error.to_string())?;
            *current = None;
            services.live.put(Arc::clone(&signer), signer)?;
            tracing::info!("the rotation of the root is aborted");
            Ok(())
        }
        Phase::Finished => Err("the old root is gone; say `finish` again".to_owned().into()),
    }
}

fn in_phase(current: Option<&Rotation>, phase: Phase, step: &str) -> Result<Rotation, No> {
    match current {
        Some(rotation) if rotation.phase == phase => Ok(rotation.clone()),
        Some(rotation) => {
            Err(format!("the rotation is {}, and {step} comes after {}", rotation.phase.name(), phase.name()))
        }
        None => Err(format!("no rotation is on, and {step} comes after {}", phase.name())),
    }
    .map_err(No::from)
}

/// The audit, the disk, and only then what is in force.
fn enter(services: &Services, current: &mut Option<Rotation>, rotation: Rotation, detail: &str) -> Result<(), No> {
    let in_force = rotation.in_force(domain(services).as_ref()).map_err(|error| error.to_string())?;
    line(services, rotation.phase.name(), detail)?;
    rotation.save(&services.dir).map_err(|error| error.to_string())?;
    tracing::info!(phase = rotation.phase.name(), detail, "the root is being rotated");
    *current = Some(rotation);
    services
        .live
        .put(Arc::new(in_force.signer), Arc::new(in_force.server))
        .map_err(|why| format!("{why}\nthe phase is on disk and not in force; restart the CA"))?;
    Ok(())
}

fn line(services: &Services, phase: &'static str, detail: &str) -> Result<(), String> {
    let written = services.audit.rotation(phase, detail.to_owned(), Clock::system().now_unix());
    written.map_err(|error| format!("the audit file cannot be written, so nothing is changed: {error}"))
}

fn names(assumed: &BTreeSet<SpiffeId>) -> String {
    let names: Vec<_> = assumed.iter().map(SpiffeId::as_str).collect();
    if names.is_empty() { String::new() } else { format!("assumed: {}", names.join(" ")) }
}

fn judge(services: &Services, rotation: &Rotation, assumed: &BTreeSet<SpiffeId>, step: Step) -> Result<(), No> {
    let (identities, digest) = (services.store.identities(), services.live.bundle_digest());
    let new_anchors = rotation.new_anchors().map_err(|error| error.to_string())?;
    let now_unix = Clock::system().now_unix();
    let seen = Seen { identities: &identities, new_anchors: &new_anchors, digest: &digest, assumed, now_unix };
    let hint = i64::try_from(services.live.registrations.load().refresh_hint.as_secs()).unwrap_or(i64::MAX);
    match step {
        Step::Promote => may_promote(seen, rotation.published_unix, hint),
        Step::Finish => may_finish(seen),
        Step::Abort => may_abort(seen),
        Step::Status | Step::Start => Ok(()),
    }
    .map_err(No::from)
}

fn standing(services: &Services, rotation: Option<&Rotation>, done: Result<(), No>) -> Standing {
    let next = rotation.map(|rotation| match rotation.phase {
        Phase::Started => Step::Promote,
        Phase::Promoted | Phase::Finished => Step::Finish,
    });
    let mut standing = Standing {
        phase: rotation.map_or("none", |rotation| rotation.phase.name()).to_owned(),
        published_since: rotation.map(|rotation| utc(rotation.published_unix)),
        bundle_digest: services.live.bundle_digest(),
        next,
        seconds_left: 0,
        behind: Vec::new(),
        refused: None,
    };
    let (what, refused) = match done {
        Err(no) => (Some(no), true),
        Ok(()) => {
            let judged = rotation.zip(next).map(|(rotation, next)| judge(services, rotation, &BTreeSet::new(), next));
            (judged.and_then(Result::err), false)
        }
    };
    let why = match what {
        None => None,
        Some(No::Other(why)) => Some(why),
        Some(No::Decided(Refused::TooEarly(left))) => {
            standing.seconds_left = left;
            Some(format!("the new root is published for too short a time; come again in {left} s"))
        }
        Some(No::Decided(Refused::Behind(behind))) => {
            standing.behind = behind.iter().map(waited).collect();
            Some(format!("{} would be cut off from others", behind.len()))
        }
    };
    standing.refused = why.filter(|_| refused);
    standing
}

fn waited(behind: &Behind) -> Waited {
    Waited {
        id: behind.id.to_string(),
        lack: behind.lack.name().to_owned(),
        until: utc(behind.until_unix),
        told: behind.told.clone(),
    }
}
