//! `/observations` and `/recent`: who was seen, and what ended last; and which sidecar says so.

use std::time::SystemTime;

use portcullis_admin::RecentQuery;
use portcullis_api::{DecidingPolicy, Mode, Observations, PortMode, ProxyInfo, Recent, Timestamp};
use portcullis_config::{Protocol, Settings};
use portcullis_policy::{Decided, EffectivePolicy};
use portcullis_telemetry::{EndedConnections, Metrics, RecentFilter};

use crate::build_info::VERSION;
use crate::daemon::effective::named_ports;
use crate::daemon::format::{StartTime, timestamp};

/// Who answers. `state` is the process's, in Envoy's words.
pub(in crate::daemon) fn proxy_info(settings: &Settings, start: StartTime, state: &str, now: SystemTime) -> ProxyInfo {
    let workload = &settings.workload;
    ProxyInfo {
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        service: settings.service.clone(),
        identity: settings.own_id.to_string(),
        trust_domain: settings.mesh.trust_domain.to_string(),
        trust_domain_aliases: settings.mesh.aliases.iter().map(ToString::to_string).collect(),
        root_namespace: settings.mesh.policy.root_namespace.clone(),
        default_mode: mode(settings.mesh.policy.default_mode),
        labels: workload.labels.clone(),
        version: VERSION.to_owned(),
        state: state.to_owned(),
        started_at: timestamp(start.wall()),
        now: timestamp(now),
    }
}

/// The page `/observations`.
pub(in crate::daemon) fn observations(
    proxy: ProxyInfo,
    settings: &Settings,
    policy: &EffectivePolicy,
    metrics: &Metrics,
) -> Observations {
    metrics.flush_bytes();
    let ledger = &metrics.ledger;
    Observations {
        proxy,
        since: ledger.since(),
        observed_seconds: ledger.observed_seconds(),
        is_persistent: ledger.is_persistent(),
        evicted: ledger.evicted(),
        ports: port_modes(settings, policy, metrics),
        observations: ledger.observations(),
    }
}

/// The page `/recent`.
pub(in crate::daemon) fn recent(proxy: ProxyInfo, metrics: &Metrics, query: &RecentQuery) -> Recent {
    let RecentQuery { after, limit, denied, conn, peer } = query.clone();
    let found = metrics.ended_connections(&RecentFilter { after, limit, denied, conn, peer });
    let EndedConnections { newest, missed, connections } = found;
    Recent { proxy, newest, missed, connections }
}

/// The mode of each port that the configuration, a policy or a connection names, then that of every other port.
fn port_modes(settings: &Settings, policy: &EffectivePolicy, metrics: &Metrics) -> Vec<PortMode> {
    let mut ports = named_ports(settings, policy);
    ports.extend(metrics.ledger.inbound_ports());
    let of_port = |port: u16| PortMode {
        port: Some(port),
        server_first: is_server_first(settings, port),
        ..port_mode(policy.mode(port))
    };
    ports.into_iter().map(of_port).chain([port_mode(policy.workload())]).collect()
}

fn port_mode(decided: &Decided) -> PortMode {
    let by = &decided.by;
    let documentation = by.documentation.as_deref();
    let expires = documentation.and_then(|it| it.expires.as_ref());
    PortMode {
        port: None,
        mode: mode(decided.mode),
        decided_by: DecidingPolicy {
            scope: by.scope.to_string(),
            namespace: by.namespace.clone(),
            name: by.name.clone(),
            file: by.file.clone(),
            line: by.line,
            owner: documentation.and_then(|it| it.owner.clone()),
            reason: documentation.and_then(|it| it.reason.clone()),
            expires: expires.map(|it| it.text.clone()),
            expires_at: expires.and_then(|it| it.unix).map(Timestamp::from_unix),
        },
        server_first: false,
    }
}

/// Whether clients of this port are given time to wait for the server: by its own listener, or by the transparent one.
fn is_server_first(settings: &Settings, port: u16) -> bool {
    let inbound = &settings.inbound;
    let own = inbound.ports.iter().find(|own| own.port == port);
    own.map_or_else(
        || inbound.transparent.is_some() && inbound.server_first_ports.contains(&port),
        |own| own.protocol == Protocol::ServerFirst,
    )
}

pub(in crate::daemon) const fn mode(mode: portcullis_policy::Mode) -> Mode {
    match mode {
        portcullis_policy::Mode::Strict => Mode::Strict,
        portcullis_policy::Mode::Permissive => Mode::Permissive,
        portcullis_policy::Mode::Disable => Mode::Disable,
    }
}
