//! `gateway`: listeners for clients outside of the mesh.

use std::net::SocketAddr;
use std::path::PathBuf;

use portcullis_identity::HostPattern;
use portcullis_policy::Cidr;
use portcullis_yaml::{Cursor, Problems};

use crate::defaults;
use crate::fields::SectionReader;
use crate::outbound::{self, TARGET, UpstreamTarget};
use crate::value;

/// `gateway`.
#[derive(Clone, Debug, Default)]
pub struct Gateway {
    /// `listeners`.
    pub listeners: Vec<GatewayListener>,
}

/// One listener for clients outside of the mesh.
#[derive(Clone, Debug)]
pub struct GatewayListener {
    /// `listen`: the address that clients, or their load balancer, dial.
    pub listen: SocketAddr,
    /// `tls`; without it clients speak plaintext.
    pub tls: Option<GatewayTls>,
    /// `proxyProtocol.from`: load balancers that must send a PROXY header. Nobody else is believed.
    pub balancers: Vec<Cidr>,
    /// `routes`: at least one. Without `tls` exactly one, without hosts.
    pub routes: Vec<GatewayRoute>,
    /// `limit`: connections at once; `None`: as many as there may be in all.
    pub limit: Option<usize>,
}

/// `tls` of a listener.
#[derive(Clone, Debug)]
pub struct GatewayTls {
    /// `certificates`: at least one, and no host in two of them.
    pub certificates: Vec<GatewayCertificate>,
    /// `clientCa`, with `mode: MUTUAL`: roots that a client's certificate must lead to.
    pub client_ca: Option<PathBuf>,
    /// `withoutServerName: first`: a client that sends no server name gets the first certificate. Otherwise it is refused.
    pub first_without_name: bool,
    /// `minVersion` is `"1.2"`, the default: clients outside of the mesh are not ours to update.
    pub allow_tls12: bool,
}

/// A certificate, and the hosts that it is presented for.
#[derive(Clone, Debug)]
pub struct GatewayCertificate {
    /// `hosts`: at least one.
    pub hosts: Vec<HostPattern>,
    /// `certificate`: the chain, leaf first.
    pub certificate: PathBuf,
    /// `privateKey`.
    pub private_key: PathBuf,
}

/// Where connections go.
#[derive(Clone, Debug)]
pub struct GatewayRoute {
    /// `hosts`: server names; without any, every connection is meant.
    pub hosts: Vec<HostPattern>,
    /// Where it leads.
    pub target: UpstreamTarget,
}

impl GatewayRoute {
    /// Whether a connection with this server name takes the route.
    #[must_use]
    pub fn takes(&self, sni: Option<&str>) -> bool {
        self.hosts.is_empty() || sni.is_some_and(|name| self.hosts.iter().any(|host| host.matches(name)))
    }
}

impl Gateway {
    /// Every file that listeners read, in the order in which they are written: of each certificate the chain and the key, then the
    /// roots for clients.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| {
            let pairs = tls.certificates.iter().flat_map(|one| [&one.certificate, &one.private_key]);
            pairs.chain(&tls.client_ca)
        })
    }
}

#[derive(Clone, Copy)]
enum TlsMode {
    Simple,
    Mutual,
}

impl SectionReader<'_> {
    pub(crate) fn gateway(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<Gateway> {
        let fields = at.fields(&["listeners"], problems)?;
        let items = fields.require("listeners", problems)?.items(problems)?;
        let listeners = items.iter().filter_map(|item| self.gateway_listener(item, problems)).collect();
        Some(Gateway { listeners })
    }

    fn gateway_listener(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<GatewayListener> {
        let fields = at.fields(&["listen", "tls", "proxyProtocol", "routes", "limit"], problems)?;
        let listen = fields.require("listen", problems).and_then(|at| value::socket_addr(&at, problems));
        let tls = match fields.get("tls") {
            None => Some(None),
            Some(at) => self.gateway_tls(&at, problems).map(Some),
        };
        let balancers = fields.get("proxyProtocol").map_or(Some(Vec::new()), |at| balancers(&at, problems));
        let limit = fields.get("limit").and_then(|at| value::limit(&at, problems));
        let routes_at = fields.require("routes", problems)?;
        let routes = routes(&routes_at, problems)?;
        let tls = tls?;
        check_routes(&routes_at, &routes, tls.is_some(), problems);
        Some(GatewayListener { listen: listen?, tls, balancers: balancers?, routes, limit })
    }

    fn gateway_tls(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<GatewayTls> {
        let known = ["mode", "certificates", "clientCa", "withoutServerName", "minVersion"];
        let fields = at.fields(&known, problems)?;
        let mode_at = fields.require("mode", problems);
        let words = [("SIMPLE", TlsMode::Simple), ("MUTUAL", TlsMode::Mutual)];
        let mode = mode_at.as_ref().and_then(|at| value::word(at, &words, problems));
        let list = fields.require("certificates", problems)?;
        let items = list.items(problems)?;
        let certificates: Vec<_> = items.iter().map(|item| self.gateway_certificate(item, problems)).collect();
        if items.is_empty() {
            value::invalid(&list, "must name at least one certificate", problems);
        }
        let ca_at = fields.get("clientCa");
        let client_ca = ca_at.as_ref().and_then(|at| self.path(at, problems));
        match (mode, &ca_at) {
            (Some(TlsMode::Simple), Some(at)) => {
                value::invalid(at, "has no effect with mode: SIMPLE; remove it, or write mode: MUTUAL", problems);
            }
            (Some(TlsMode::Mutual), None) => {
                let message = "mode: MUTUAL needs clientCa: the roots that a client's certificate must lead to";
                value::invalid(mode_at.as_ref().unwrap_or(at), message, problems);
            }
            _ => {}
        }
        let without = [("refuse", false), ("first", true)];
        let first_without_name =
            fields.get("withoutServerName").map_or(Some(false), |at| value::word(&at, &without, problems));
        let versions = [("1.2", true), ("1.3", false)];
        let allow_tls12 = fields
            .get("minVersion")
            .map_or(Some(defaults::GATEWAY_ALLOWS_TLS12), |at| value::word(&at, &versions, problems));
        let certificates = certificates.into_iter().collect::<Option<Vec<_>>>()?;
        check_hosts(&list, &certificates, problems);
        mode?;
        Some(GatewayTls { certificates, client_ca, first_without_name: first_without_name?, allow_tls12: allow_tls12? })
    }

    fn gateway_certificate(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<GatewayCertificate> {
        let fields = at.fields(&["hosts", "certificate", "privateKey"], problems)?;
        let hosts_at = fields.require("hosts", problems);
        let hosts = hosts_at.as_ref().and_then(|at| hosts(at, problems));
        let [certificate, private_key] = ["certificate", "privateKey"]
            .map(|name| fields.require(name, problems).and_then(|at| self.path(&at, problems)));
        Some(GatewayCertificate { hosts: hosts?, certificate: certificate?, private_key: private_key? })
    }
}

fn hosts(at: &Cursor<'_>, problems: &mut Problems) -> Option<Vec<HostPattern>> {
    let items = at.items(problems)?;
    if items.is_empty() {
        value::invalid(at, "must name at least one host", problems);
        return None;
    }
    let pattern = |item: &Cursor<'_>, problems: &mut Problems| match HostPattern::parse(item.string(problems)?) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            value::invalid(item, error.to_string(), problems);
            None
        }
    };
    let read: Vec<_> = items.iter().map(|item| pattern(item, problems)).collect();
    read.into_iter().collect()
}

fn balancers(at: &Cursor<'_>, problems: &mut Problems) -> Option<Vec<Cidr>> {
    let from = at.fields(&["from"], problems)?.require("from", problems)?;
    let items = from.items(problems)?;
    if items.is_empty() {
        value::invalid(&from, "must name at least one load balancer", problems);
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| outbound::cidr(item, problems)).collect();
    read.into_iter().collect()
}

/// `None` if one of them could not be read: what they all say together cannot be checked then.
fn routes(at: &Cursor<'_>, problems: &mut Problems) -> Option<Vec<GatewayRoute>> {
    let items = at.items(problems)?;
    if items.is_empty() {
        value::invalid(at, "must name at least one route", problems);
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| route(item, problems)).collect();
    read.into_iter().collect()
}

fn route(at: &Cursor<'_>, problems: &mut Problems) -> Option<GatewayRoute> {
    let known: Vec<&str> = ["hosts"].into_iter().chain(TARGET).collect();
    let fields = at.fields(&known, problems)?;
    let hosts = fields.get("hosts").map_or(Some(Vec::new()), |at| hosts(&at, problems));
    let target = outbound::read_target(&fields, problems);
    Some(GatewayRoute { hosts: hosts?, target: target? })
}

/// A route that no connection takes is a mistake.
fn check_routes(at: &Cursor<'_>, routes: &[GatewayRoute], has_tls: bool, problems: &mut Problems) {
    let items = at.items(&mut Problems::new()).unwrap_or_default();
    let mut before: Vec<&GatewayRoute> = Vec::new();
    for (route, item) in routes.iter().zip(&items) {
        if let (false, Some(hosts)) = (has_tls, item.peek("hosts")) {
            value::invalid(&hosts, "cannot be told apart without tls: plaintext has no server name", problems);
        } else if before.iter().any(|other| other.hosts.is_empty()) {
            value::invalid(item, "is never taken: an earlier route without hosts takes every connection", problems);
        } else if let Some(host) = route.hosts.iter().find(|host| before.iter().any(|other| other.hosts.contains(host)))
        {
            value::invalid(item, format!("host {host} is in an earlier route already"), problems);
        }
        before.push(route);
    }
}

fn check_hosts(at: &Cursor<'_>, certificates: &[GatewayCertificate], problems: &mut Problems) {
    let mut seen: Vec<&HostPattern> = Vec::new();
    for host in certificates.iter().flat_map(|one| &one.hosts) {
        if seen.contains(&host) {
            value::invalid(
                at,
                format!("host {host} is listed twice; the first certificate would always win"),
                problems,
            );
        }
        seen.push(host);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{RouteMode, Settings, UpstreamMode};

    fn read(listener: &str) -> Result<Settings, String> {
        let text = format!("workload: {{name: gw, namespace: shop}}\ngateway: {{listeners: [{listener}]}}\n");
        crate::read(text.as_bytes(), Path::new("/conf"))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    const ROUTE: &str = "{address: \"cart:8080\", mode: plaintext}";

    fn with_tls(tls: &str) -> String {
        format!("{{listen: \"127.0.0.1:443\", tls: {{{tls}}}, routes: [{ROUTE}]}}")
    }

    #[test]
    fn a_whole_listener() {
        let listener = "{listen: \"0.0.0.0:443\", tls: {mode: MUTUAL, clientCa: ca.pem, minVersion: \"1.3\", withoutServerName: first, \
             certificates: [{hosts: [shop.example.com, \"*.example.org\"], certificate: c/s.pem, privateKey: c/s.key}]}, \
             proxyProtocol: {from: [10.0.0.0/8]}, limit: 9, routes: [\
             {hosts: [shop.example.com], address: \"cart:8080\", mode: mtls, service: cart, \
              identities: [\"spiffe://cluster.local/ns/shop/sa/cart\"]}, \
             {address: \"other:1\", mode: plaintext}]}";
        let settings = read(listener).unwrap();
        assert_eq!(settings.listeners(), [("gateway.listeners[0].listen".to_owned(), "0.0.0.0:443".parse().unwrap())]);
        let files: Vec<_> = settings.gateway.files().map(|path| path.display().to_string()).collect();
        assert_eq!(files, ["/conf/c/s.pem", "/conf/c/s.key", "/conf/ca.pem"]);
        let listener = &settings.gateway.listeners[0];
        let tls = listener.tls.as_ref().unwrap();
        assert!(tls.first_without_name && !tls.allow_tls12 && listener.limit == Some(9));
        assert!(listener.balancers[0].contains("10.1.2.3".parse().unwrap()));
        let taken = |sni: Option<&str>| listener.routes.iter().position(|route| route.takes(sni)).unwrap();
        assert_eq!([taken(Some("shop.example.com")), taken(Some("x.example.org")), taken(None)], [0, 1, 1]);
        assert!(matches!(listener.routes[0].target.mode, UpstreamMode::Fixed(RouteMode::Mtls(_))));
        let simple =
            read(&with_tls("mode: SIMPLE, certificates: [{hosts: [a], certificate: a, privateKey: a}]")).unwrap();
        let tls = simple.gateway.listeners[0].tls.clone().unwrap();
        assert!(!tls.first_without_name && tls.allow_tls12 && tls.client_ca.is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let one = "certificates: [{hosts: [a.b], certificate: a, privateKey: a}]";
        let plain = |routes: &str| format!("{{listen: \"127.0.0.1:80\", routes: [{routes}]}}");
        for (listener, expected) in [
            (plain(""), "at least one route"),
            (plain("{hosts: [a], address: \"b:1\", mode: plaintext}"), "plaintext has no server name"),
            (plain(&format!("{ROUTE}, {ROUTE}")), "never taken"),
            (plain("{address: \"b:1\", mode: mtls}"), "needs identities"),
            (with_tls("mode: SIMPLE, certificates: []"), "at least one certificate"),
            (with_tls(&format!("mode: MUTUAL, {one}")), "needs clientCa"),
            (with_tls(&format!("mode: SIMPLE, clientCa: x, {one}")), "no effect"),
            (with_tls(&format!("mode: ISTIO_MUTUAL, {one}")), "SIMPLE, MUTUAL"),
            (with_tls(one), "mode"),
            (with_tls("mode: SIMPLE, certificates: [{hosts: [], certificate: a, privateKey: a}]"), "at least one host"),
            (with_tls("mode: SIMPLE, certificates: [{hosts: [10.0.0.1], certificate: a, privateKey: a}]"), "no host name"),
            (with_tls("mode: SIMPLE, certificates: [{hosts: [a, A], certificate: a, privateKey: a}]"), "listed twice"),
            ("{listen: \"127.0.0.1:80\", proxyProtocol: {from: []}, routes: [".to_owned() + ROUTE + "]}", "load balancer"),
            ("{listen: \"127.0.0.1:80\", proxyProtocol: {from: [x]}, routes: [".to_owned() + ROUTE + "]}", "address range"),
            (plain("{address: \"127.0.0.1:80\", mode: plaintext}"), "own gateway"),
            (
                "{listen: \"127.0.0.1:443\", tls: {mode: SIMPLE, certificates: [{hosts: [a], certificate: a, privateKey: a}]}, routes: \
                 [{hosts: [a], address: \"b:1\", mode: plaintext}, {hosts: [A], address: \"c:1\", mode: plaintext}]}"
                    .to_owned(),
                "earlier route already",
            ),
        ] {
            let problems = read(&listener).unwrap_err();
            assert!(problems.contains(expected), "{listener}\n{problems}");
        }
    }
}
