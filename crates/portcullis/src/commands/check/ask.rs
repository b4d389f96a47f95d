//! What running proxies say.

use std::collections::HashMap;

use portcullis_api::{Certs, ConfigDump, Observations, ProxyInfo, Status, Timestamp, TlsCompat};
use portcullis_discovery::{Sidecar as Asked, SourceError, Unanswered};
use portcullis_report::check::{Facts, Known, NoAnswer, Sidecar};
use portcullis_tls::Clock;

use super::engine;
use crate::build_info::VERSION;
use crate::commands::chain::verify;
use crate::commands::proxies::{ProxiesArgs, proxy_info};
use crate::commands::selection::{SelectionArgs, title};
use crate::exit::Failure;
use crate::output::MissingAnswer;

/// What was found out, and who said nothing.
pub(super) struct Answers {
    pub(super) facts: Facts,
    pub(super) unanswered: Vec<MissingAnswer>,
}

/// Asks every proxy. Those that are not meant are left out, but not those that do not answer: nobody knows whose they are.
pub(super) fn ask(proxies: &ProxiesArgs, selection: &SelectionArgs, now: Timestamp) -> Result<Answers, Failure> {
    let mesh = match proxies.find() {
        Ok(mesh) => mesh,
        Err(failure) => return stopped(proxies, &failure, now)?.ok_or(failure),
    };
    let answers = mesh.rows(|sidecar| async move { known(&sidecar).await });
    let asked = !answers.answers.is_empty();
    let meant = if asked { selection.select(answers.answers, |answer| &answer.value.proxy)? } else { Vec::new() };
    let mut known: Vec<Known> = meant.into_iter().map(|answer| answer.value).collect();
    known.sort_by(|one, other| {
        let order = |known: &Known| (known.proxy.namespace.clone(), known.proxy.name.clone(), known.label.clone());
        order(one).cmp(&order(other))
    });
    name_apart(&mut known);
    let answered = known.into_iter().map(|known| Sidecar { label: known.proxy.name.clone(), answer: Ok(known) });
    let silent = answers.unanswered.iter().map(|missing| Sidecar {
        label: missing
            .name
            .as_ref()
            .map_or_else(|| missing.address.clone(), |name| format!("{name} ({})", missing.address)),
        answer: Err(NoAnswer {
            message: missing.message.clone(),
            is_other: matches!(missing.reason, "not-a-sidecar" | "too-old" | "too-large" | "forbidden"),
        }),
    });
    let facts = Facts {
        now,
        version: VERSION.to_owned(),
        sidecars: answered.chain(silent).collect(),
        containers: mesh.containers_without_sidecar().map(<[String]>::to_vec),
        meshed: proxies.stacks(&mesh).map(|found| found.map(|found| engine::meshed(&found))),
    };
    Ok(Answers { facts, unanswered: answers.unanswered })
}

/// No sidecar runs. The engine may know which containers of a stack should, which says more than the failure.
fn stopped(proxies: &ProxiesArgs, failure: &Failure, now: Timestamp) -> Result<Option<Answers>, Failure> {
    if !proxies.is_engine_alone() || !matches!(failure.error.downcast_ref(), Some(SourceError::Empty(_))) {
        return Ok(None);
    }
    let Some(Ok(found)) = proxies.stacks(&proxies.of(Vec::new())?) else { return Ok(None) };
    let meshed = engine::meshed(&found);
    Ok((!meshed.is_empty()).then(|| {
        let version = VERSION.to_owned();
        let facts = Facts { now, version, sidecars: Vec::new(), containers: None, meshed: Some(Ok(meshed)) };
        Answers { facts, unanswered: Vec::new() }
    }))
}

/// Replicas of one workload have one name: their addresses tell them apart.
fn name_apart(known: &mut [Known]) {
    let mut count: HashMap<String, usize> = HashMap::new();
    for known in known.iter() {
        *count.entry(title(&known.proxy)).or_default() += 1;
    }
    for known in known {
        let title = title(&known.proxy);
        let is_only = count.get(&title) == Some(&1);
        known.label = if is_only { title } else { format!("{title} ({})", known.label) };
    }
}

fn here() -> Timestamp {
    Timestamp::from_unix(Clock::system().now_unix())
}

async fn known(sidecar: &Asked) -> Result<Known, Unanswered> {
    // The shortest page first, whose answer has the clock.
    let asked_at = here();
    let proxy = proxy_info(sidecar).await?;
    let answered_at = here();
    let (policies, certs) = (sidecar.get("/policies").await?, sidecar.get::<Certs>("/certs").await?);
    let compat = sidecar.get::<ConfigDump>("/config_dump").await?.tls.compat;
    let status = match sidecar.get::<Status>("/status").await {
        Ok(status) => Some(status),
        Err(Unanswered::TooOld(_)) => None,
        Err(other) => return Err(other),
    };
    let observations = match sidecar.get::<Observations>("/observations").await {
        Ok(observations) => Some(observations),
        Err(Unanswered::TooOld(_)) => None,
        Err(other) => return Err(other),
    };
    let chain = chain(&proxy, &certs, compat, answered_at);
    // The whole is named apart from others later.
    let label = sidecar.target().address.to_string();
    Ok(Known { label, proxy, asked_at, answered_at, policies, certs, chain, observations, status })
}

/// Whether the chain verifies within the time of its leaf: that it is over is told apart.
fn chain(proxy: &ProxyInfo, certs: &Certs, compat: TlsCompat, now: Timestamp) -> Result<(), String> {
    let Some(own) = certs.certificates.first() else { return Ok(()) };
    let leaf = own.cert_chain.first().ok_or("the proxy shows no certificate")?;
    let at = match (leaf.valid_from, leaf.expiration_time) {
        (Some(from), Some(until)) if from <= until => now.clamp(from, until),
        _ => now,
    };
    verify(proxy, certs, own, compat, at.unix())
}
