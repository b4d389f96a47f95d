//! `/config_dump`: the configuration with every default filled in, and all that is in force.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis_config::{
    Downgrade, Gateway, GatewayCertificate, GatewayTls, IdentitySource, IdentityTlv, Inbound, Otherwise, Otlp,
    Outbound, Protocol, RouteMode, Settings, UpstreamMode, UpstreamTarget,
};
use portcullis_identity::HostPattern;
use portcullis_istio::MeshConfig;
use portcullis_policy::EffectivePolicy;
use portcullis_tls::CredentialReader;
use serde_json::{Map, Value, json};

use super::certs::certificates;
use super::policies::modes;
use crate::daemon::format::duration;
use crate::daemon::source_status::SourceStatus;

/// Values that the configuration leaves to the machine.
#[derive(Clone, Copy)]
pub(in crate::daemon) struct Derived {
    /// The limit on connections.
    pub(in crate::daemon) connections: usize,
    /// The limit on connections in detection or handshake.
    pub(in crate::daemon) handshakes: usize,
    /// Data-plane threads.
    pub(in crate::daemon) workers: usize,
}

/// What is in force besides the configuration.
pub(in crate::daemon) struct InForce<'a> {
    pub(in crate::daemon) derived: Derived,
    pub(in crate::daemon) policy: &'a EffectivePolicy,
    pub(in crate::daemon) mesh: &'a MeshConfig,
    pub(in crate::daemon) credentials: &'a CredentialReader,
    pub(in crate::daemon) source: &'a SourceStatus,
}

/// The page; `parts` are other pages that belong into it.
pub(in crate::daemon) fn config(settings: &Settings, in_force: &InForce<'_>, parts: [(&str, Value); 3]) -> Value {
    let InForce { derived, policy, mesh: mesh_config, credentials, source } = in_force;
    let mut dump = json!({
        "workload": workload(settings),
        "mesh": mesh(settings),
        "identity": identity(settings, mesh_config),
        "certificates": certificates(credentials, source),
        "modes": modes(settings, policy),
        "inbound": inbound(&settings.inbound),
        "outbound": outbound(&settings.outbound),
        "gateway": gateway(&settings.gateway),
        "tls": {
            "minVersion": if settings.tls.allow_tls12 { "1.2" } else { "1.3" },
            "compat": { "eku": settings.tls.compat.eku, "kuCritical": settings.tls.compat.ku_critical },
        },
        "limits": {
            "connections": derived.connections,
            "perIdentity": settings.limits.per_identity,
            "handshakes": derived.handshakes,
            "buffers": settings.limits.buffers,
        },
        "timeouts": {
            "handshake": duration(settings.timeouts.handshake),
            "connect": duration(settings.timeouts.connect),
            "idle": settings.timeouts.idle.map(duration),
            "halfClose": duration(settings.timeouts.half_close),
        },
        "drain": { "grace": duration(settings.drain_grace) },
        "rescanInterval": duration(settings.rescan),
        "sandbox": { "landlock": settings.sandbox.landlock, "seccomp": settings.sandbox.seccomp },
        "workers": derived.workers,
        "admin": { "listen": shown(settings.admin), "socket": settings.admin_socket.as_ref().map(|socket| path(&socket.path)), "tokenFile": settings.admin_token.as_deref().map(path) },
        "health": { "listen": shown(settings.health) },
        "metrics": { "listen": shown(settings.metrics) },
        "telemetry": { "otlp": settings.telemetry.export.as_ref().map(otlp) },
    });
    if let Value::Object(fields) = &mut dump {
        fields.extend(parts.map(|(name, part)| (name.to_owned(), part)));
    }
    dump
}

fn shown<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// What is in force of file and environment. The values of headers may be secrets.
fn otlp(export: &Otlp) -> Value {
    json!({
        "endpoint": export.endpoint.to_string(),
        "protocol": export.protocol.as_str(),
        "timeout": duration(export.timeout),
        "headers": export.headers.iter().map(|(name, _secret)| name).collect::<Vec<_>>(),
        "certificate": export.certificate.as_deref().map(path),
        "serviceName": export.service_name,
        "resourceAttributes": export.resource.iter().cloned().collect::<BTreeMap<_, _>>(),
    })
}

fn workload(settings: &Settings) -> Value {
    let workload = &settings.workload;
    json!({
        "name": workload.name,
        "namespace": workload.namespace,
        "serviceAccount": workload.service_account,
        "labels": workload.labels,
        "service": settings.service,
        "spiffeId": settings.own_id.as_str(),
    })
}

fn mesh(settings: &Settings) -> Value {
    let mesh = &settings.mesh;
    let bundles: Map<_, _> =
        mesh.trust_bundles.iter().map(|(domain, file)| (domain.to_string(), path(file).into())).collect();
    json!({
        "trustDomain": mesh.trust_domain.as_str(),
        "trustDomainAliases": mesh.aliases.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "trustBundles": bundles,
        "rootNamespace": mesh.policy.root_namespace,
        "defaultMode": mesh.policy.default_mode,
    })
}

/// The paths of the files, not their content.
fn identity(settings: &Settings, mesh_config: &MeshConfig) -> Option<Value> {
    let identity = settings.identity.as_ref()?;
    let part = |millionths: u32| f64::from(millionths) / 1e6;
    let (name, source) = match &identity.source {
        IdentitySource::Files(files) => (
            "files",
            json!({
                "certificate": path(&files.certificate),
                "privateKey": path(&files.private_key),
                "trustBundle": path(&files.trust_bundle),
            }),
        ),
        IdentitySource::Ca(ca) => {
            let ((kind, kind_from), (ttl, ttl_from)) = (ca.key_in_force(mesh_config.key_type()), ca.ttl_in_force());
            let renewal = ca.environment.renewal;
            (
                "ca",
                json!({
                    "address": ca.address.to_string(),
                    "trustBundle": path(&ca.trust_bundle),
                    "tokenFile": ca.token_file.as_deref().map(path),
                    "renewToken": ca.renew_token,
                    "serverName": ca.server_name,
                    "keyType": kind.to_string(),
                    "keyTypeFrom": kind_from.to_string(),
                    "ttl": ttl.map(duration),
                    "ttlFrom": ttl_from.to_string(),
                    "renewal": { "gracePeriodRatio": part(renewal.grace), "jitter": part(renewal.jitter) },
                }),
            )
        }
        IdentitySource::WorkloadApi(api) => {
            ("workloadApi", json!({ "socket": path(&api.socket), "spiffeId": settings.own_id.as_str() }))
        }
    };
    Some(json!({ name: source, "requirePrivateMode": identity.require_private_mode }))
}

fn inbound(inbound: &Inbound) -> Value {
    let port = |port: &portcullis_config::InboundPort| {
        json!({
            "listen": port.listen.to_string(),
            "port": port.port,
            "app": port.app.to_string(),
            "protocol": match port.protocol {
                Protocol::Auto => "auto",
                Protocol::ServerFirst => "server-first",
            },
            "proxyProtocol": port.proxy_protocol.then_some("v2"),
            "limit": port.limit,
        })
    };
    let apps: Map<_, _> = inbound.apps.iter().map(|(port, app)| (port.to_string(), json!(app.to_string()))).collect();
    json!({
        "ports": inbound.ports.iter().map(port).collect::<Vec<_>>(),
        "transparent": shown(inbound.transparent),
        "transparentLimit": inbound.transparent_limit,
        "httpHint": inbound.http_hint,
        "proxyProtocolPorts": inbound.proxy_protocol_ports,
        "proxyProtocolIdentity": match inbound.proxy_protocol_identity {
            IdentityTlv::Portcullis => "portcullis",
            IdentityTlv::Ztunnel => "ztunnel",
        },
        "serverFirstPorts": inbound.server_first_ports,
        "apps": apps,
    })
}

fn outbound(outbound: &Outbound) -> Value {
    let upstreams = outbound.upstreams.iter().map(|upstream| {
        with_target(json!({ "listen": upstream.listen.to_string(), "limit": upstream.limit }), &upstream.target)
    });
    let routes = outbound.routes.iter().map(|route| {
        let cidrs: Vec<_> = route.cidrs.iter().map(ToString::to_string).collect();
        with_route(
            json!({ "hosts": route.hosts, "cidrs": cidrs, "ports": route.ports }),
            &route.mode,
            route.service.as_deref(),
        )
    });
    json!({
        "upstreams": upstreams.collect::<Vec<_>>(),
        "transparent": shown(outbound.transparent),
        "transparentLimit": outbound.transparent_limit,
        "routes": routes.collect::<Vec<_>>(),
        "otherwise": match outbound.otherwise {
            Otherwise::Plaintext => "plaintext",
            Otherwise::Refuse => "refuse",
        },
        "trafficPolicy": match outbound.otherwise {
            Otherwise::Plaintext => "ALLOW_ANY",
            Otherwise::Refuse => "REGISTRY_ONLY",
        },
        "downgrade": match outbound.downgrade {
            Downgrade::Warn => "warn",
            Downgrade::Refuse => "refuse",
        },
        "tlsFolder": outbound.tls_folder,
    })
}

fn gateway(gateway: &Gateway) -> Value {
    let hosts = |hosts: &[HostPattern]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let tls = |tls: &GatewayTls| {
        let certificate = |one: &GatewayCertificate| {
            json!({
                "hosts": hosts(&one.hosts),
                "certificate": path(&one.certificate),
                "privateKey": path(&one.private_key),
            })
        };
        json!({
            "mode": if tls.client_ca.is_some() { "MUTUAL" } else { "SIMPLE" },
            "certificates": tls.certificates.iter().map(certificate).collect::<Vec<_>>(),
            "clientCa": tls.client_ca.as_deref().map(path),
            "withoutServerName": if tls.first_without_name { "first" } else { "refuse" },
            "minVersion": if tls.allow_tls12 { "1.2" } else { "1.3" },
        })
    };
    let listeners = gateway.listeners.iter().map(|listener| {
        let routes =
            listener.routes.iter().map(|route| with_target(json!({ "hosts": hosts(&route.hosts) }), &route.target));
        json!({
            "listen": listener.listen.to_string(),
            "tls": listener.tls.as_ref().map(tls),
            "proxyProtocol": { "from": listener.balancers.iter().map(ToString::to_string).collect::<Vec<_>>() },
            "routes": routes.collect::<Vec<_>>(),
            "limit": listener.limit,
        })
    });
    json!({ "listeners": listeners.collect::<Vec<_>>() })
}

/// Adds where a listener leads to its other fields.
fn with_target(mut fields: Value, target: &UpstreamTarget) -> Value {
    let UpstreamTarget { address, mode, service } = target;
    if let Value::Object(fields) = &mut fields {
        fields.insert("address".to_owned(), address.to_string().into());
        if let UpstreamMode::Auto { subset } = mode {
            fields.insert("mode".to_owned(), "auto".into());
            fields.insert("subset".to_owned(), subset.as_deref().into());
        }
    }
    match mode {
        UpstreamMode::Fixed(mode) => with_route(fields, mode, service.as_deref()),
        UpstreamMode::Auto { .. } => fields,
    }
}

/// Adds how a destination is reached to the fields that name it.
fn with_route(mut fields: Value, mode: &RouteMode, service: Option<&str>) -> Value {
    let (mode, identities) = match mode {
        RouteMode::Plaintext => ("plaintext", Vec::new()),
        RouteMode::Hbone(expected) => ("hbone", expected.iter().map(ToString::to_string).collect()),
        RouteMode::Mtls(expected) => ("mtls", expected.iter().map(ToString::to_string).collect()),
    };
    if let Value::Object(fields) = &mut fields {
        fields.insert("mode".to_owned(), mode.into());
        fields.insert("identities".to_owned(), identities.into());
        fields.insert("service".to_owned(), service.into());
    }
    fields
}
