//! Asking the sidecars about a change: what they have in force, and whom they refused.

use std::collections::HashMap;

use portcullis_api::{EndedConnection, Observations, Policies, ProxyInfo, Recent, Timestamp};
use portcullis_discovery::{AdminAddress, SidecarTarget, Unanswered};
use portcullis_policy::{MeshSettings, PolicySet};
use portcullis_report::Names;
use portcullis_report::guard::{Baseline, Denied, denied};

use super::progress::SyncState;
use super::record::RecordedSidecar;
use crate::commands::proxies::{Mesh, proxy_info};
use crate::commands::selection::title;

/// As many refused connections as a sidecar keeps when others push them out: with so many, some may be missing.
const MAX_KEPT: usize = 256;

/// A sidecar that is watched.
pub(super) struct Watched {
    pub(super) target: SidecarTarget,
    /// `cart.shop (127.0.0.1:15000)`.
    pub(super) shown: String,
    pub(super) proxy: ProxyInfo,
    /// Whether it reads a policy folder.
    has_folder: bool,
    baseline: Baseline,
    observations: Observations,
    started_at: Timestamp,
    /// The last connection that was looked at.
    seen: u64,
    state: SyncState,
}

/// What a sidecar says before the change.
pub(super) struct Before {
    pub(super) target: SidecarTarget,
    pub(super) proxy: ProxyInfo,
    pub(super) policies: Policies,
    observations: Observations,
    recent: Recent,
}

/// Asks all sidecars what there is before the change; in their order.
pub(super) fn before(mesh: &Mesh) -> Vec<(SidecarTarget, Result<Before, Unanswered>)> {
    let rows = mesh.poll(mesh.targets(), |sidecar| async move {
        let proxy = proxy_info(&sidecar).await?;
        // First, so that what is refused from here on is looked at.
        let recent = sidecar.get::<Recent>("/recent?denied=true").await?;
        let policies = sidecar.get::<Policies>("/policies").await?;
        let observations = sidecar.get::<Observations>("/observations").await?;
        Ok(Before { target: sidecar.target().clone(), proxy, policies, observations, recent })
    });
    rows.into_iter().map(|row| (row.target, row.answer)).collect()
}

/// `cart.shop (127.0.0.1:15000)`.
pub(super) fn shown(target: &SidecarTarget, proxy: &ProxyInfo) -> String {
    format!("{} ({})", title(proxy), target.address)
}

/// The two sets of a change, and settings for sidecars that do not tell theirs.
pub(super) struct Sets<'a> {
    pub(super) before: &'a PolicySet,
    pub(super) after: &'a PolicySet,
    pub(super) mesh: &'a MeshSettings,
}

impl Watched {
    /// `from`: what was read already, if the change was made by another process.
    pub(super) fn new(before: Before, sets: &Sets<'_>, from: Option<&RecordedSidecar>) -> Self {
        let Before { target, proxy, policies, observations, recent } = before;
        let started_at = proxy.started_at;
        let seen = match from {
            Some(from) if from.started_at == started_at => from.seen,
            // All that its new process refused, it refused after the change.
            Some(_) => 0,
            None => recent.newest,
        };
        Self {
            shown: shown(&target, &proxy),
            has_folder: policies.folder.is_some(),
            baseline: Baseline::new(sets.before, sets.after, sets.mesh, &observations, &recent, seen),
            observations,
            started_at,
            seen,
            // Until it was asked.
            state: SyncState::Stale,
            proxy,
            target,
        }
    }

    pub(super) fn recorded(&self) -> RecordedSidecar {
        RecordedSidecar { address: self.target.address.to_string(), started_at: self.started_at, seen: self.seen }
    }
}

/// What one round brought.
#[derive(Default)]
pub(super) struct Round {
    pub(super) states: Vec<SyncState>,
    /// Each refused connection that the change caused.
    pub(super) denied: Vec<Denied>,
    /// Refused connections of which nothing is known but their number.
    pub(super) unseen: u64,
    pub(super) notes: Vec<String>,
}

/// Asks every sidecar once. With `hash`, also whether it has that set in force.
pub(super) fn round(mesh: &Mesh, watched: &mut [Watched], hash: Option<&str>) -> Round {
    let after: HashMap<AdminAddress, u64> = watched.iter().map(|one| (one.target.address.clone(), one.seen)).collect();
    let targets: Vec<SidecarTarget> = watched.iter().map(|one| one.target.clone()).collect();
    let asks_policies = hash.is_some();
    let rows = mesh.poll(&targets, move |sidecar| {
        let after = after.get(&sidecar.target().address).copied().unwrap_or(0);
        async move {
            let recent = sidecar.get::<Recent>(&format!("/recent?denied=true&after={after}")).await?;
            let policies = if asks_policies { Some(sidecar.get::<Policies>("/policies").await?) } else { None };
            Ok((recent, policies))
        }
    });
    let mut round = Round::default();
    let mut refused: Vec<(usize, Vec<EndedConnection>)> = Vec::new();
    for ((index, one), row) in watched.iter_mut().enumerate().zip(rows) {
        match row.answer {
            Err(why) => one.state = SyncState::Unreachable(why.to_string()),
            Ok((recent, policies)) => {
                if let (Some(policies), Some(hash)) = (policies, hash) {
                    one.state = state(one.has_folder, &policies, hash);
                } else if matches!(one.state, SyncState::Unreachable(_)) {
                    // It answers again; what it has in force is asked in the next round.
                    one.state = SyncState::Stale;
                }
                if recent.proxy.started_at != one.started_at {
                    let note =
                        format!("{} has started again; what it refused in the second before is not known", one.shown);
                    round.notes.push(note);
                    (one.started_at, one.seen) = (recent.proxy.started_at, 0);
                    one.state = SyncState::Stale;
                } else {
                    one.seen = recent.newest;
                    if recent.connections.len() >= MAX_KEPT {
                        round.unseen = round.unseen.saturating_add(recent.missed);
                    }
                    let caused: Vec<EndedConnection> =
                        recent.connections.into_iter().filter(|ended| one.baseline.caused(ended)).collect();
                    if !caused.is_empty() {
                        refused.push((index, caused));
                    }
                }
            }
        }
        round.states.push(one.state.clone());
    }
    name(mesh, watched, &refused, &mut round);
    round
}

/// Whether the set is in force.
fn state(has_folder: bool, policies: &Policies, hash: &str) -> SyncState {
    match &policies.problem {
        _ if !has_folder => SyncState::Synced,
        Some(problem) => SyncState::Rejects(problem.message.clone()),
        None if policies.hash.as_deref() == Some(hash) => SyncState::Synced,
        None => SyncState::Stale,
    }
}

/// Finds out who was refused. Names are looked up by the sidecars, so those that refused are asked again.
fn name(mesh: &Mesh, watched: &mut [Watched], refused: &[(usize, Vec<EndedConnection>)], round: &mut Round) {
    if refused.is_empty() {
        return;
    }
    let targets: Vec<SidecarTarget> =
        refused.iter().filter_map(|(index, _)| Some(watched.get(*index)?.target.clone())).collect();
    let rows = mesh.poll(&targets, |sidecar| async move { sidecar.get::<Observations>("/observations").await });
    for ((index, _), row) in refused.iter().zip(rows) {
        if let (Some(one), Ok(observations)) = (watched.get_mut(*index), row.answer) {
            one.observations = observations;
        }
    }
    let all: Vec<&Observations> = watched.iter().map(|one| &one.observations).collect();
    let containers = mesh.containers();
    let addresses = refused.iter().flat_map(|(_, ended)| ended).filter_map(|ended| {
        let address = ended.source.parse::<std::net::SocketAddr>().ok()?.ip().to_canonical();
        Some((address, containers.get(address)?.to_owned(), Timestamp::from_unix(containers.since(address)?)))
    });
    let names: Names = addresses.collect();
    for (index, ended) in refused {
        let Some(one) = watched.get(*index) else { continue };
        round.denied.extend(ended.iter().map(|ended| denied(&one.proxy, ended, &all, &names)));
    }
}
