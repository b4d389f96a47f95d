//! `outbound`: which destinations are reached over mTLS, and which identities are expected there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use portcullis_identity::ExpectedIds;
use portcullis_policy::Cidr;
use portcullis_yaml::{Cursor, Fields, Problems};

use crate::fields::{SectionReader, section};
use crate::{defaults, value};

/// `outbound`.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// `upstreams`: explicit listeners, each for one destination.
    pub upstreams: Vec<Upstream>,
    /// `transparent`: a listener that redirected connections reach.
    pub transparent: Option<SocketAddr>,
    /// `transparentLimit`: connections that the transparent listener has at once; `None`: as many as there may be in all.
    pub transparent_limit: Option<usize>,
    /// `routes`: what to do with a captured connection, by its original destination.
    pub routes: Vec<Route>,
    /// `trafficPolicy`, or `otherwise`: a captured destination that neither a route nor the service directory names.
    pub otherwise: Otherwise,
    /// `downgrade`: a peer that was reached over mTLS and would be sent plaintext now.
    pub downgrade: Downgrade,
    /// `hbonePort`: where peers take tunnels.
    pub hbone_port: u16,
    /// `tlsFolder`: the only folder from which DestinationRules may name certificates and keys.
    pub tls_folder: Option<PathBuf>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            transparent: None,
            transparent_limit: None,
            routes: Vec::new(),
            otherwise: Otherwise::default(),
            downgrade: Downgrade::default(),
            hbone_port: defaults::HBONE_PORT,
            tls_folder: None,
        }
    }
}

/// One explicit outbound listener.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// `listen`: the address that the local app dials.
    pub listen: SocketAddr,
    /// Where it leads.
    pub target: UpstreamTarget,
    /// `limit`: connections at once; `None`: as many as there may be in all.
    pub limit: Option<usize>,
}

/// The destination of a listener, and how it is reached.
#[derive(Clone, Debug)]
pub struct UpstreamTarget {
    /// `address`: the peer, or with `mode: auto` a service of the directory. A name is resolved at each dial.
    pub address: HostPort,
    /// `mode` and `identities`.
    pub mode: UpstreamMode,
    /// `service`: the destination's service name in metrics and logs.
    pub service: Option<String>,
}

/// How a configured destination is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum UpstreamMode {
    /// As the configuration says: `mode: mtls` or `mode: plaintext`.
    Fixed(RouteMode),
    /// `mode: auto`: as the service directory and the policies say, decided for each connection.
    Auto {
        /// `subset`: only the endpoints of this subset of the DestinationRule.
        subset: Option<String>,
    },
}

/// One rule for captured connections.
#[derive(Clone, Debug)]
pub struct Route {
    /// `hosts`: names that are resolved by the proxy.
    pub hosts: Vec<String>,
    /// `cidrs`: address ranges.
    pub cidrs: Vec<Cidr>,
    /// `ports`: original destination ports; empty means every port.
    pub ports: Vec<u16>,
    /// `mode` and `identities`.
    pub mode: RouteMode,
    /// `service`: the destination's service name in metrics and logs.
    pub service: Option<String>,
}

/// How a destination is reached. There is no fallback from mTLS to plaintext.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RouteMode {
    /// mTLS; the server must be one of these.
    Mtls(ExpectedIds),
    /// A stream of an HBONE tunnel to a server with one of these identities.
    Hbone(ExpectedIds),
    /// Plaintext, because the configuration says so.
    Plaintext,
}

/// What happens to a captured destination without a route.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Otherwise {
    /// Forwarded unchanged.
    #[default]
    Plaintext,
    /// Reset.
    Refuse,
}

/// What happens to a connection that would be plaintext although its destination was reached over mTLS before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Downgrade {
    /// It is forwarded; the log has a warning, and a metric counts it.
    #[default]
    Warn,
    /// It is refused.
    Refuse,
}

/// A host name or address with a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port` or `[address]:port`. The port is not 0.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Some(Self { host: addr.ip().to_string(), port: addr.port() }).filter(|parsed| parsed.port != 0);
        }
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        (port != 0 && is_host(host)).then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[derive(Clone, Copy)]
enum ModeWord {
    Mtls,
    Hbone,
    Plaintext,
    Auto,
}

const KNOWN: &[&str] = &[
    "upstreams",
    "transparent",
    "transparentLimit",
    "routes",
    "otherwise",
    "trafficPolicy",
    "downgrade",
    "hbonePort",
    "tlsFolder",
];

/// The keys of an [`UpstreamTarget`].
pub(crate) const TARGET: [&str; 5] = ["address", "mode", "identities", "subset", "service"];

pub(crate) fn read(reader: &SectionReader<'_>, at: &Cursor<'_>, problems: &mut Problems) -> Option<Outbound> {
    let fields = at.fields(KNOWN, problems)?;
    let mut outbound = Outbound::default();
    if let Some(list) = fields.get("upstreams") {
        for item in list.items(problems)? {
            outbound.upstreams.extend(read_upstream(&item, problems));
        }
    }
    outbound.transparent = fields.get("transparent").and_then(|at| value::socket_addr(&at, problems));
    outbound.transparent_limit = fields.get("transparentLimit").and_then(|at| value::limit(&at, problems));
    if let Some(list) = fields.get("routes") {
        for item in list.items(problems)? {
            outbound.routes.extend(read_route(&item, problems));
        }
    }
    outbound.otherwise = read_otherwise(&fields, problems);
    let downgrades = [("warn", Downgrade::Warn), ("refuse", Downgrade::Refuse)];
    outbound.downgrade =
        section(&fields, "downgrade", Downgrade::default(), problems, |at, p| value::word(at, &downgrades, p))?;
    if let Some(at) = fields.get("hbonePort") {
        outbound.hbone_port = value::port(&at, problems)?;
    }
    outbound.tls_folder = section(&fields, "tlsFolder", None, problems, |at, p| reader.path(at, p).map(Some))?;
    if outbound.transparent.is_none() {
        let unused = ["transparentLimit", "routes", "otherwise", "trafficPolicy"];
        for unused in unused.into_iter().filter_map(|name| fields.get(name)) {
            value::invalid(&unused, "has no effect without outbound.transparent; add it, or use upstreams", problems);
        }
    }
    Some(outbound)
}

/// Istio's words in `trafficPolicy` (`meshConfig.outboundTrafficPolicy.mode`), or ours in `otherwise`, which is older.
fn read_otherwise(fields: &Fields<'_>, problems: &mut Problems) -> Otherwise {
    let older = fields.get("otherwise").and_then(|at| {
        let words = [("plaintext", Otherwise::Plaintext), ("refuse", Otherwise::Refuse)];
        value::word(&at, &words, problems)
    });
    let Some(at) = fields.get("trafficPolicy") else { return older.unwrap_or_default() };
    if fields.get("otherwise").is_some() {
        value::invalid(&at, "says the same as outbound.otherwise; remove one of them", problems);
    }
    let words = [("ALLOW_ANY", Otherwise::Plaintext), ("REGISTRY_ONLY", Otherwise::Refuse)];
    value::word(&at, &words, problems).unwrap_or_default()
}

fn read_upstream(at: &Cursor<'_>, problems: &mut Problems) -> Option<Upstream> {
    let known: Vec<&str> = ["listen", "limit"].into_iter().chain(TARGET).collect();
    let fields = at.fields(&known, problems)?;
    let listen = fields.require("listen", problems).and_then(|at| value::socket_addr(&at, problems));
    let target = read_target(&fields, problems);
    let limit = fields.get("limit").and_then(|at| value::limit(&at, problems));
    Some(Upstream { listen: listen?, target: target?, limit })
}

/// Reads the keys of [`TARGET`].
pub(crate) fn read_target(fields: &Fields<'_>, problems: &mut Problems) -> Option<UpstreamTarget> {
    let address = fields.require("address", problems).and_then(|at| host_port(&at, problems));
    let mode = read_upstream_mode(fields, problems);
    let service = fields.get("service").and_then(|at| at.string(problems)).map(str::to_owned);
    Some(UpstreamTarget { address: address?, mode: mode?, service })
}

fn read_upstream_mode(fields: &Fields<'_>, problems: &mut Problems) -> Option<UpstreamMode> {
    let at = fields.require("mode", problems)?;
    let words = [
        ("mtls", ModeWord::Mtls),
        ("hbone", ModeWord::Hbone),
        ("plaintext", ModeWord::Plaintext),
        ("auto", ModeWord::Auto),
    ];
    let word = value::word(&at, &words, problems)?;
    if let ModeWord::Auto = word {
        for name in ["identities", "service"] {
            if let Some(at) = fields.get(name) {
                value::invalid(&at, "comes from the service directory with mode: auto; remove it", problems);
            }
        }
        let subset = section(fields, "subset", None, problems, |at, p| at.string(p).map(|name| Some(name.to_owned())));
        return Some(UpstreamMode::Auto { subset: subset? });
    }
    if let Some(at) = fields.get("subset") {
        value::invalid(&at, "has a meaning with mode: auto only; remove it", problems);
    }
    read_identities(word, &at, fields, problems).map(UpstreamMode::Fixed)
}

fn read_route(at: &Cursor<'_>, problems: &mut Problems) -> Option<Route> {
    let fields = at.fields(&["hosts", "cidrs", "ports", "mode", "identities", "service"], problems)?;
    let mut hosts = Vec::new();
    if let Some(list) = fields.get("hosts") {
        hosts.extend(list.items(problems)?.iter().filter_map(|item| host(item, problems)));
    }
    let mut cidrs = Vec::new();
    if let Some(list) = fields.get("cidrs") {
        cidrs.extend(list.items(problems)?.iter().filter_map(|item| cidr(item, problems)));
    }
    let ports = fields.get("ports").map_or(Some(Vec::new()), |at| value::ports(&at, problems));
    if fields.get("hosts").is_none() && fields.get("cidrs").is_none() {
        value::invalid(at, "names no destination; add hosts or cidrs", problems);
        return None;
    }
    let mode = read_mode(&fields, problems);
    let service = fields.get("service").and_then(|at| at.string(problems)).map(str::to_owned);
    Some(Route { hosts, cidrs, ports: ports?, mode: mode?, service })
}

fn read_mode(fields: &Fields<'_>, problems: &mut Problems) -> Option<RouteMode> {
    let at = fields.require("mode", problems)?;
    let words = [("mtls", ModeWord::Mtls), ("hbone", ModeWord::Hbone), ("plaintext", ModeWord::Plaintext)];
    let word = value::word(&at, &words, problems)?;
    read_identities(word, &at, fields, problems)
}

/// `identities`, which mTLS and HBONE need and plaintext must not have.
fn read_identities(
    word: ModeWord,
    mode_at: &Cursor<'_>,
    fields: &Fields<'_>,
    problems: &mut Problems,
) -> Option<RouteMode> {
    let identities = fields.get("identities");
    match (word, identities) {
        (ModeWord::Auto, _) => None,
        (ModeWord::Plaintext, None) => Some(RouteMode::Plaintext),
        (ModeWord::Plaintext, Some(at)) => {
            value::invalid(&at, "cannot be verified with mode: plaintext; remove them, or write mode: mtls", problems);
            None
        }
        (ModeWord::Mtls | ModeWord::Hbone, None) => {
            let mode = if let ModeWord::Hbone = word { "hbone" } else { "mtls" };
            let message = format!(
                "mode: {mode} needs identities: the SPIFFE IDs that the server may have, e.g. \
                 [\"spiffe://cluster.local/ns/shop/sa/cart\"]"
            );
            value::invalid(mode_at, message, problems);
            None
        }
        (ModeWord::Mtls | ModeWord::Hbone, Some(at)) => {
            let items = at.items(problems)?;
            let ids: Vec<_> = items.iter().map(|item| value::spiffe_id(item, problems)).collect();
            match ExpectedIds::new(ids.into_iter().collect::<Option<Vec<_>>>()?) {
                Ok(expected) if matches!(word, ModeWord::Hbone) => Some(RouteMode::Hbone(expected)),
                Ok(expected) => Some(RouteMode::Mtls(expected)),
                Err(_) => {
                    value::invalid(
                        &at,
                        "must name at least one SPIFFE ID; an empty list would match no server",
                        problems,
                    );
                    None
                }
            }
        }
    }
}

pub(crate) fn host_port(at: &Cursor<'_>, problems: &mut Problems) -> Option<HostPort> {
    let text = at.string(problems)?;
    let parsed = HostPort::parse(text);
    if parsed.is_none() {
        value::invalid(
            at,
            format!("\"{text}\" is not host:port; write \"cart:8080\" or \"[2001:db8::1]:8080\""),
            problems,
        );
    }
    parsed
}

fn host(at: &Cursor<'_>, problems: &mut Problems) -> Option<String> {
    let text = at.string(problems)?;
    if !is_host(text) {
        value::invalid(at, format!("\"{text}\" is not a host name; addresses belong under cidrs"), problems);
        return None;
    }
    Some(text.to_owned())
}

/// A name that can be resolved; underscores occur in compose service names.
pub(crate) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= 253 && text.parse::<IpAddr>().is_err() && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

pub(crate) fn cidr(at: &Cursor<'_>, problems: &mut Problems) -> Option<Cidr> {
    let text = at.string(problems)?;
    let parsed = Cidr::parse(text);
    if parsed.is_none() {
        let message = format!("\"{text}\" is not an address range; write \"10.0.0.0/8\", host bits zero");
        value::invalid(at, message, problems);
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_own_addresses_and_no_others() {
        let range = Cidr::parse("10.1.0.0/16").unwrap();
        assert!(range.contains("10.1.255.255".parse().unwrap()));
        assert!(range.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!range.contains("10.2.0.0".parse().unwrap()));
        assert!(Cidr::parse("0.0.0.0/0").unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!(Cidr::parse("::/0").unwrap().contains("2001:db8::1".parse().unwrap()));
        assert!(!Cidr::parse("::/0").unwrap().contains("8.8.8.8".parse().unwrap()));
        assert_eq!([range, Cidr::parse("::1").unwrap()].map(|range| range.to_string()), ["10.1.0.0/16", "::1/128"]);
        for bad in ["10.1.2.3/16", "10.0.0.0/33", "10.0.0.0/", "x/8", "10.0.0.0/+8", "::/129"] {
            assert!(Cidr::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn host_and_port_are_told_apart() {
        assert_eq!(HostPort::parse("cart:8080").unwrap().to_string(), "cart:8080");
        assert_eq!(HostPort::parse("[::1]:80").unwrap().to_string(), "[::1]:80");
        for bad in ["cart", "cart:", ":80", "cart:0", "cart:65536", "::1:80", "a b:80", "127.0.0.1:0", "http://x:80"] {
            assert!(HostPort::parse(bad).is_none(), "{bad}");
        }
    }
}
