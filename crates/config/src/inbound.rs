//! `inbound`: the ports to which policy applies, and the address of the app.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use portcullis_yaml::{Cursor, Fields, Problems};

use crate::{defaults, value};

/// `inbound`.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// `ports`: explicit listeners.
    pub ports: Vec<InboundPort>,
    /// `transparent`: a listener that redirected connections reach; their original destination names the port.
    pub transparent: Option<SocketAddr>,
    /// `transparentLimit`: connections that the transparent listener has at once; `None`: as many as there may be in all.
    pub transparent_limit: Option<usize>,
    /// `hbone`: where peers open HBONE tunnels.
    pub hbone: Option<SocketAddr>,
    /// `httpHint`: a plaintext request of HTTP/1 that is refused is answered, instead of only closed.
    pub http_hint: bool,
    /// `proxyProtocolPorts`: captured ports whose app gets its client's address in a PROXY header.
    pub proxy_protocol_ports: BTreeSet<u16>,
    /// `proxyProtocolIdentity`: how the header says who the client is.
    pub proxy_protocol_identity: IdentityTlv,
    /// `serverFirstPorts`: ports whose server speaks first.
    pub server_first_ports: BTreeSet<u16>,
    /// `apps`: where to dial instead of the original destination, by port (an app that listens on loopback only).
    pub apps: BTreeMap<u16, SocketAddr>,
}

impl Default for Inbound {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            transparent: None,
            transparent_limit: None,
            hbone: None,
            http_hint: false,
            proxy_protocol_ports: BTreeSet::new(),
            proxy_protocol_identity: IdentityTlv::Portcullis,
            server_first_ports: defaults::SERVER_FIRST_PORTS.iter().copied().collect(),
            apps: BTreeMap::new(),
        }
    }
}

/// One explicit inbound listener.
#[derive(Clone, Debug)]
pub struct InboundPort {
    /// `listen`: the address that peers dial.
    pub listen: SocketAddr,
    /// `port`: the workload's port, the one that PeerAuthentication speaks of.
    pub port: u16,
    /// `app`: the address of the app itself.
    pub app: SocketAddr,
    /// `protocol`.
    pub protocol: Protocol,
    /// `proxyProtocol: v2`: the app gets its client's address in a PROXY header.
    pub proxy_protocol: bool,
    /// `limit`: connections at once; `None`: as many as there may be in all.
    pub limit: Option<usize>,
}

/// Which TLV of a PROXY header has the client's SPIFFE ID.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdentityTlv {
    /// 0xE5, of the range for applications.
    Portcullis,
    /// 0xD0, as ztunnel of Istio's ambient mesh has it.
    Ztunnel,
}

/// Which side sends first on a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// The client, as with HTTP; its first bytes are waited for.
    Auto,
    /// The server, as with SMTP or MySQL: under PERMISSIVE the app is dialled after a short silence.
    ServerFirst,
}

pub(crate) fn read(at: &Cursor<'_>, problems: &mut Problems) -> Option<Inbound> {
    let known = [
        "ports",
        "transparent",
        "transparentLimit",
        "hbone",
        "proxyProtocolPorts",
        "proxyProtocolIdentity",
        "serverFirstPorts",
        "apps",
        "httpHint",
    ];
    let fields = at.fields(&known, problems)?;
    let mut inbound = Inbound::default();
    if let Some(list) = fields.get("ports") {
        for item in list.items(problems)? {
            inbound.ports.extend(read_port(&item, problems));
        }
    }
    inbound.transparent = fields.get("transparent").and_then(|at| value::socket_addr(&at, problems));
    inbound.transparent_limit = fields.get("transparentLimit").and_then(|at| value::limit(&at, problems));
    inbound.hbone = fields.get("hbone").and_then(|at| value::socket_addr(&at, problems));
    inbound.http_hint = fields.get("httpHint").and_then(|at| at.boolean(problems)).unwrap_or_default();
    if let Some(at) = fields.get("proxyProtocolPorts") {
        inbound.proxy_protocol_ports = value::ports(&at, problems)?.into_iter().collect();
    }
    if let Some(at) = fields.get("proxyProtocolIdentity") {
        let words = [("portcullis", IdentityTlv::Portcullis), ("ztunnel", IdentityTlv::Ztunnel)];
        inbound.proxy_protocol_identity = value::word(&at, &words, problems)?;
    }
    let is_captured = inbound.transparent.is_some();
    let unused = [("transparentLimit", is_captured), ("proxyProtocolPorts", is_captured || inbound.hbone.is_some())];
    for unused in unused.into_iter().filter_map(|(name, used)| fields.get(name).filter(|_| !used)) {
        value::invalid(&unused, "has no effect without inbound.transparent; see the keys of ports", problems);
    }
    if let Some(at) = fields.get("serverFirstPorts") {
        inbound.server_first_ports = value::ports(&at, problems)?.into_iter().collect();
        // A list in the file holds for explicit ports too. The default one does not: there the entry has a
        // `protocol` of its own, and what it leaves out means `auto`.
        for port in &mut inbound.ports {
            if port.protocol == Protocol::Auto && inbound.server_first_ports.contains(&port.port) {
                port.protocol = Protocol::ServerFirst;
            }
        }
    }
    check_server_first(&inbound, &fields, problems);
    if let Some(at) = fields.get("apps") {
        for (key, target) in at.entries(problems)? {
            let Some(port) = parse_port(key.text()) else {
                value::invalid(&target, format!("the key \"{}\" is not a port from 1 to 65535", key.text()), problems);
                continue;
            };
            if let Some(app) = value::socket_addr(&target, problems) {
                inbound.apps.insert(port, app);
            }
        }
    }
    Some(inbound)
}

/// On a server-first port the app is dialled before the peer is known; a PROXY header needs the peer before the dial. The two
/// exclude each other.
fn check_server_first(inbound: &Inbound, fields: &Fields<'_>, problems: &mut Problems) {
    if let Some(both) = inbound.proxy_protocol_ports.intersection(&inbound.server_first_ports).next()
        && let Some(at) = fields.get("proxyProtocolPorts")
    {
        let message = format!(
            "{both} is in serverFirstPorts too: the app sends first there, before its client is known; {SPEAKS}"
        );
        value::invalid(&at, message, problems);
    }
    // What could not be read is reported already; the others are found by their number only if all were.
    let items = fields.get("ports").and_then(|at| at.items(&mut Problems::new())).unwrap_or_default();
    for (port, at) in inbound.ports.iter().zip(&items).filter(|_| items.len() == inbound.ports.len()) {
        if port.proxy_protocol && port.protocol == Protocol::ServerFirst {
            let message = format!(
                "port {} is server-first: the app sends first there, before its client is known; {SPEAKS}",
                port.port
            );
            value::invalid(&at.peek("proxyProtocol").unwrap_or_else(|| at.clone()), message, problems);
        }
    }
}

const SPEAKS: &str = "take it out of the one or the other (a list of serverFirstPorts replaces the default one)";

fn parse_port(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

fn read_port(at: &Cursor<'_>, problems: &mut Problems) -> Option<InboundPort> {
    let fields = at.fields(&["listen", "port", "app", "protocol", "proxyProtocol", "limit"], problems)?;
    let listen = fields.require("listen", problems).and_then(|at| value::socket_addr(&at, problems));
    let port = fields.require("port", problems).and_then(|at| value::port(&at, problems));
    let app_at = fields.require("app", problems);
    let app = app_at.as_ref().and_then(|at| value::socket_addr(at, problems));
    let protocol = match fields.get("protocol") {
        None => Some(Protocol::Auto),
        Some(at) => value::word(&at, &[("auto", Protocol::Auto), ("server-first", Protocol::ServerFirst)], problems),
    };
    let proxy_protocol = match fields.get("proxyProtocol") {
        None => Some(false),
        Some(at) => value::word(&at, &[("v2", true)], problems),
    };
    let limit = fields.get("limit").and_then(|at| value::limit(&at, problems));
    let (listen, port, app, protocol, proxy_protocol) = (listen?, port?, app?, protocol?, proxy_protocol?);
    if let (true, Some(app_at)) = (listen == app, app_at) {
        value::invalid(&app_at, format!("is the listener itself ({listen}), which would be a loop"), problems);
        return None;
    }
    Some(InboundPort { listen, port, app, protocol, proxy_protocol, limit })
}
