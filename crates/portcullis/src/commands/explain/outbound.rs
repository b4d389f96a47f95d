//! How the workload reaches a destination: a route, a service of the directory, or `outbound.trafficPolicy`.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use portcullis_config::{HostPort, Otherwise, Outbound, Route, RouteMode};
use portcullis_policy::directory::{
    Client, Directory, EndpointOverview, Lookup, LookupOverview, PortOverview, ServiceOverview, TransportOverview,
};
use serde::Serialize;

use crate::commands::subject::LoadedSubject;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};

/// The answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    to: String,
    /// What decides: `route`, `directory` or `trafficPolicy`.
    decided_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<LookupOverview>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic_policy: Option<&'static str>,
    /// Whether a connection would be made at all.
    refused: bool,
}

/// A route of the configuration.
#[derive(Serialize)]
struct RouteAnswer {
    /// Its place in `outbound.routes`, from 0.
    index: usize,
    mode: &'static str,
    identities: Vec<String>,
}

/// Answers; exit 0 also where connections are refused, since the question was answered.
pub(super) fn explain(subject: &LoadedSubject, to: &HostPort, subset: Option<&str>, format: Format) -> Outcome {
    let LoadedSubject { set, mesh, namespace, labels, client } = subject;
    let from = Client { namespace, labels, locality: client.locality.as_ref() };
    let directory = Directory::resolve(set, mesh, &from);
    let answer = Answer::new(&client.outbound, &directory, to, subset);
    if to.host.parse::<IpAddr>().is_ok() && !directory.names().is_empty() {
        output::note("note: names are not resolved here, so an address of a service with resolution DNS is not known");
    }
    match format {
        Format::Json => output::json(&answer)?,
        Format::Text => output::text(&answer.text())?,
    }
    Ok(Exit::Ok)
}

impl Answer {
    fn new(outbound: &Outbound, directory: &Directory, to: &HostPort, subset: Option<&str>) -> Self {
        let empty = Self {
            to: to.to_string(),
            decided_by: "route",
            route: None,
            directory: None,
            traffic_policy: None,
            refused: false,
        };
        let address: Option<IpAddr> = to.host.parse().ok();
        // A listener with `mode: auto` has no routes; a subset exists for those only.
        let route =
            outbound.routes.iter().position(|route| subset.is_none() && covers(route, &to.host, address, to.port));
        if let Some((index, route)) = route.and_then(|index| Some((index, outbound.routes.get(index)?))) {
            let (mode, identities) = match &route.mode {
                RouteMode::Hbone(ids) => ("hbone", ids.iter().map(ToString::to_string).collect()),
                RouteMode::Mtls(ids) => ("mtls", ids.iter().map(ToString::to_string).collect()),
                RouteMode::Plaintext => ("plaintext", Vec::new()),
            };
            return Self { route: Some(RouteAnswer { index, mode, identities }), ..empty };
        }
        let found = match address {
            Some(address) if subset.is_none() => directory.find(SocketAddr::new(address, to.port), &[]),
            _ => directory.by_host(&to.host, to.port, subset),
        };
        if !matches!(found, Lookup::Unknown) {
            let refused = is_refused(&found);
            return Self { decided_by: "directory", directory: Some(found.overview()), refused, ..empty };
        }
        let (word, refused) = match outbound.otherwise {
            Otherwise::Plaintext => ("ALLOW_ANY", false),
            Otherwise::Refuse => ("REGISTRY_ONLY", true),
        };
        Self { decided_by: "trafficPolicy", traffic_policy: Some(word), refused, ..empty }
    }

    fn text(&self) -> String {
        let to = &self.to;
        if let Some(RouteAnswer { index, mode, identities }) = &self.route {
            let ids = if identities.is_empty() { String::new() } else { format!(" with {}", identities.join(", ")) };
            return format!("{to}: {mode}{ids}, by outbound.routes[{index}] of the configuration\n");
        }
        if let Some(found) = &self.directory {
            return match &found.service {
                Some(service) => service_text(to, service),
                None => format!("{to}: refused: {}\n", why_not(found)),
            };
        }
        match self.traffic_policy {
            Some("REGISTRY_ONLY") => {
                format!(
                    "{to}: refused: neither a route nor a ServiceEntry names it, and outbound.trafficPolicy is REGISTRY_ONLY\n"
                )
            }
            _ => format!(
                "{to}: plaintext if it is captured, since neither a route nor a ServiceEntry names it (outbound.trafficPolicy \
                 ALLOW_ANY); a listener with mode: auto refuses it\n"
            ),
        }
    }
}

/// Whether a route of the configuration applies. A name is compared with the hosts, an address with the ranges.
fn covers(route: &Route, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    let destination = match address {
        Some(address) => route.cidrs.iter().any(|cidr| cidr.contains(address)),
        None => route.hosts.iter().any(|known| known.eq_ignore_ascii_case(host)),
    };
    destination && (route.ports.is_empty() || route.ports.contains(&port))
}

/// Whether no connection would be made to it.
fn is_refused(lookup: &Lookup<'_>) -> bool {
    let Lookup::Found(found) = lookup else { return true };
    let overview = found.overview();
    let transports = |port: &PortOverview| {
        let endpoints = port.endpoints.iter().map(|endpoint| endpoint.transport.clone());
        endpoints.chain(port.original.clone()).collect::<Vec<_>>()
    };
    overview.ports.iter().flat_map(transports).all(|transport| has_nobody(&transport))
}

/// mTLS for which no identity is declared.
fn has_nobody(transport: &TransportOverview) -> bool {
    transport.identities.as_ref().is_some_and(Vec::is_empty)
}

fn why_not(found: &LookupOverview) -> String {
    match found.result {
        "conflict" => {
            format!("ServiceEntries that are reached in different ways claim it: {}", found.conflict.join(", "))
        }
        "no_subset" => "the DestinationRule of the service has no such subset".to_owned(),
        _ => "the service has no such port".to_owned(),
    }
}

fn service_text(to: &str, service: &ServiceOverview) -> String {
    let mut text = format!("{to}: service {} ({}, {}:{})", service.host, service.entry, service.file, service.line);
    if let Some(rule) = &service.rule {
        let _infallible = write!(text, ", DestinationRule {} ({}:{})", rule.rule, rule.file, rule.line);
    }
    text.push('\n');
    for port in &service.ports {
        for endpoint in &port.endpoints {
            text.push_str(&endpoint_text(endpoint));
        }
        if let Some(original) = &port.original {
            text.push_str(&line("the address that is dialled", original, ""));
        }
        if port.endpoints.is_empty() && port.original.is_none() {
            text.push_str("  no endpoint: connections are refused\n");
        }
    }
    text
}

fn endpoint_text(endpoint: &EndpointOverview) -> String {
    let EndpointOverview { address, port, .. } = endpoint;
    let at = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    line(&at, &endpoint.transport, if endpoint.takes_hbone { " over HBONE" } else { "" })
}

fn line(at: &str, transport: &TransportOverview, carrier: &str) -> String {
    let how = match &transport.identities {
        Some(ids) if ids.is_empty() => "refused".to_owned(),
        Some(ids) => format!("{}{carrier} with {}", transport.transport, ids.join(" or ")),
        None => transport.transport.to_owned(),
    };
    format!("  {at}  {how}: {}\n", transport.why)
}
