//! The steps of a rotation. The running CA performs them, since it holds the issued certificates and the reports.
//!
//! Order of each: decide, with nothing being signed; a line in the audit; the phase on disk, in one step; the phase in
//! force. A crash leaves the phase that is on disk, which the next start takes up.

use std::path::Path;
use std::sync::Arc;

use portcullis_ca::rotation::{Assumed, Phase, Rotation, RotationSnapshot, may_abort, may_finish, may_promote};
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_tls::Clock;

use crate::rotation_status::{RotationStatus, StepError};
use crate::service::Services;
use crate::step::{Request, Step};
use crate::{old_root, reload};

/// The folder in which a new CA is handed over.
const NEXT: &str = "next";

/// At startup: completes a step that a crash interrupted, and returns what is in force.
pub(crate) fn resume(dir: &Path, domain: Option<&TrustDomain>, clock: &Clock) -> Result<reload::InForce, String> {
    match Rotation::load(dir).map_err(|error| error.to_string())? {
        None => reload::finish_key_replacement(dir, domain, clock)?,
        Some(rotation) if rotation.phase == Phase::Finished => {
            // Before files are replaced, it is known that what replaces them can be used.
            rotation.in_force(domain, clock).map_err(|error| error.to_string())?;
            settle(dir, &rotation)?;
        }
        Some(_) => {}
    }
    reload::in_force(dir, domain, clock)
}

fn settle(dir: &Path, rotation: &Rotation) -> Result<(), String> {
    rotation.settle(dir).and_then(|()| Rotation::remove(dir)).map_err(|error| error.to_string())
}

/// Performs a step and returns the status after it.
pub(crate) fn step(services: &Services, request: &Request) -> RotationStatus {
    let mut rotation = services.state.rotating();
    let connections = rotation.as_ref().and_then(|rotation| old_root::connections(services, rotation));
    let done = assumed(&request.assume).map_err(StepError::from).and_then(|assumed| match request.step {
        Step::Status => Ok(()),
        Step::Start => start(services, &mut rotation),
        Step::Promote => promote(services, &mut rotation, &assumed),
        Step::Finish => finish(services, &mut rotation, &assumed),
        Step::Abort => abort(services, &mut rotation),
    });
    let mut status = status(services, rotation.as_ref(), done);
    status.old_root_connections = connections;
    status
}

/// Instances are named by sixteen hexadecimal digits, which no SPIFFE ID is.
fn assumed(names: &[String]) -> Result<Assumed, String> {
    let mut assumed = Assumed::default();
    for name in names {
        if name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            assumed.instances.insert(name.to_ascii_lowercase());
            continue;
        }
        let id = SpiffeId::parse(name).map_err(|error| {
            format!("--assume {name}: neither a SPIFFE ID ({error}) nor an instance, which is 16 hexadecimal digits")
        })?;
        assumed.ids.insert(id);
    }
    Ok(assumed)
}

fn domain(services: &Services) -> Option<TrustDomain> {
    services.state.registrations.load().trust_domain.clone()
}

fn start(services: &Services, rotation: &mut Option<Rotation>) -> Result<(), StepError> {
    if let Some(rotation) = rotation {
        return Err(format!("a rotation is in progress already; it is {}", rotation.phase.name()).into());
    }
    let (dir, domain) = (&services.dir, domain(services));
    let next = dir.join(NEXT);
    let clock = &services.state.clock;
    let (old, new) = (reload::files(dir, domain.as_ref(), clock)?, reload::files(&next, domain.as_ref(), clock)?);
    let begun = Rotation::start(old, new, domain.as_ref(), clock).map_err(|error| error.to_string())?;
    enter(services, rotation, begun, "")?;
    // Its key is in the rotation now.
    if let Err(error) = std::fs::remove_dir_all(&next) {
        tracing::warn!(%error, folder = %next.display(), "cannot be removed; nothing reads it any more");
    }
    Ok(())
}

fn promote(services: &Services, current: &mut Option<Rotation>, assumed: &Assumed) -> Result<(), StepError> {
    let mut rotation = in_phase(current.as_ref(), Phase::Started, "promote")?;
    check_step(services, &rotation, assumed, Step::Promote)?;
    rotation.enter(Phase::Promoted, services.state.clock.now_unix());
    enter(services, current, rotation, &names(assumed))
}

fn finish(services: &Services, current: &mut Option<Rotation>, assumed: &Assumed) -> Result<(), StepError> {
    // One that could not be brought to its end.
    let cut_off = current.as_ref().filter(|rotation| rotation.phase == Phase::Finished).cloned();
    let rotation = match cut_off {
        Some(rotation) => rotation,
        None => {
            let mut rotation = in_phase(current.as_ref(), Phase::Promoted, "finish")?;
            check_step(services, &rotation, assumed, Step::Finish)?;
            rotation.enter(Phase::Finished, services.state.clock.now_unix());
            enter(services, current, rotation.clone(), &names(assumed))?;
            rotation
        }
    };
    settle(&services.dir, &rotation).map_err(|why| {
        format!("{why}\nthe new root alone is in force; run `finish` again to put its files in place")
    })?;
    *current = None;
    Ok(())
}

fn abort(services: &Services, current: &mut Option<Rotation>) -> Result<(), StepError> {
    let mut rotation = current.clone().ok_or_else(|| "no rotation is in progress".to_owned())?;
    match rotation.phase {
        Phase::Promoted => {
            rotation.enter(Phase::Started, services.state.clock.now_unix());
            enter(services, current, rotation, "back from promoted")
        }
        Phase::Started => {
            check_step(services, &rotation, &Assumed::default(), Step::Abort)?;
            let signer = Arc::new(reload::signer(&services.dir, domain(services).as_ref(), &services.state.clock)?);
            let old = rotation.old_anchor(domain(services).as_ref(), &services.state.clock);
            if signer.anchor() != old.map_err(|error| error.to_string())? {
                return Err(
                    "root-cert.pem, ca-cert.pem: they are not those that the rotation began with; put them back"
                        .to_owned()
                        .into(),
                );
            }
            line(services, "none", "aborted")?;
            Rotation::remove(&services.dir).map_err(|error| error.to_string())?;
            *current = None;
            services.state.install(Arc::clone(&signer), signer)?;
            tracing::info!("the rotation of the root is aborted");
            Ok(())
        }
        Phase::Finished => Err("the old root is gone; run `finish` again".to_owned().into()),
    }
}

fn in_phase(current: Option<&Rotation>, phase: Phase, step: &str) -> Result<Rotation, StepError> {
    match current {
        Some(rotation) if rotation.phase == phase => Ok(rotation.clone()),
        Some(rotation) => {
            Err(format!("the rotation is {}, and {step} comes after {}", rotation.phase.name(), phase.name()))
        }
        None => Err(format!("no rotation is in progress, and {step} comes after {}", phase.name())),
    }
    .map_err(StepError::from)
}

/// The audit, the disk, and only then what is in force.
fn enter(
    services: &Services,
    current: &mut Option<Rotation>,
    rotation: Rotation,
    detail: &str,
) -> Result<(), StepError> {
    let in_force =
        rotation.in_force(domain(services).as_ref(), &services.state.clock).map_err(|error| error.to_string())?;
    line(services, rotation.phase.name(), detail)?;
    if let Err(error) = rotation.save(&services.dir) {
        // The audit line was written first, and the step did not happen.
        let _written = line(services, rotation.phase.name(), &format!("not entered: {error}"));
        return Err(error.to_string().into());
    }
    tracing::info!(phase = rotation.phase.name(), detail, "the root is being rotated");
    *current = Some(rotation);
    services
        .state
        .install(Arc::new(in_force.signer), Arc::new(in_force.server))
        .map_err(|why| format!("{why}\nthe phase is on disk and not in force; restart the CA"))?;
    Ok(())
}

fn line(services: &Services, phase: &'static str, detail: &str) -> Result<(), String> {
    let written = services.audit.rotation(phase, detail.to_owned(), services.state.clock.now_unix());
    written.map_err(|error| format!("the audit file cannot be written, so nothing is changed: {error}"))
}

fn names(assumed: &Assumed) -> String {
    let ids = assumed.ids.iter().map(SpiffeId::as_str);
    let names: Vec<_> = ids.chain(assumed.instances.iter().map(String::as_str)).collect();
    if names.is_empty() { String::new() } else { format!("assumed: {}", names.join(" ")) }
}

fn check_step(services: &Services, rotation: &Rotation, assumed: &Assumed, step: Step) -> Result<(), StepError> {
    let (identities, instances) = (services.store.identities(), services.store.instances());
    let digest = services.state.bundle_digest();
    let new_anchors = rotation.new_anchors(&services.state.clock).map_err(|error| error.to_string())?;
    let now_unix = services.state.clock.now_unix();
    let snapshot = RotationSnapshot {
        identities: &identities,
        instances: &instances,
        new_anchors: &new_anchors,
        digest: &digest,
        published_unix: rotation.published_unix,
        assumed,
        now_unix,
    };
    let hint = i64::try_from(services.state.registrations.load().refresh_hint.as_secs()).unwrap_or(i64::MAX);
    match step {
        Step::Promote => may_promote(snapshot, hint),
        Step::Finish => may_finish(snapshot),
        Step::Abort => may_abort(snapshot),
        Step::Status | Step::Start => Ok(()),
    }
    .map_err(StepError::from)
}

/// The status, with what blocks the next step unless a step was refused.
fn status(services: &Services, rotation: Option<&Rotation>, done: Result<(), StepError>) -> RotationStatus {
    let (lacking, refused) = match done {
        Err(not_done) => (Some(not_done), true),
        Ok(()) => {
            let next =
                |rotation: &Rotation| check_step(services, rotation, &Assumed::default(), Step::after(rotation.phase));
            (rotation.map(next).and_then(Result::err), false)
        }
    };
    RotationStatus::new(rotation, services.state.bundle_digest(), lacking, refused, services.state.clock.now_unix())
}
