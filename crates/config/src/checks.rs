//! Checks across keys: two listeners on one address, destinations that are this proxy's own listeners.

use std::net::{IpAddr, SocketAddr};

use portcullis_yaml::{Cursor, Problems};

use crate::{HostPort, Settings};

/// Two listeners on one address, or an app that is one of our own ports, can only be a mistake.
pub(crate) fn listeners(settings: &Settings, root: &Cursor<'_>, problems: &mut Problems) {
    let listeners = settings.listeners();
    for (index, (field, addr)) in listeners.iter().enumerate() {
        let earlier = listeners.iter().take(index).find(|(_, other)| addr.port() != 0 && clash(*addr, *other));
        if let Some((other, _)) = earlier {
            let message = format!("{field} and {other} both listen on {addr}");
            at(root, field).report("address-in-use", message, problems);
        }
    }
    let explicit = settings.inbound.ports.iter().enumerate();
    let explicit = explicit.map(|(index, port)| (format!("inbound.ports[{index}].app"), port.app));
    let mapped = settings.inbound.apps.iter().map(|(port, app)| (format!("inbound.apps[{port}]"), *app));
    for (what, app) in explicit.chain(mapped) {
        if let Some((field, _)) = listeners.iter().find(|(_, listener)| clash(app, *listener)) {
            at(root, &what).report("loop", format!("{what} ({app}) is this proxy's own {field}"), problems);
        }
    }
}

/// An upstream that is an outbound or gateway listener of this proxy would be an endless loop. Inbound listeners may be dialled.
pub(crate) fn upstreams(settings: &Settings, root: &Cursor<'_>, problems: &mut Problems) {
    let listeners = settings.listeners();
    let upstreams = settings.outbound.upstreams.iter().enumerate();
    let upstreams = upstreams.map(|(index, one)| (format!("outbound.upstreams[{index}].address"), &one.target.address));
    let gateway = settings.gateway.listeners.iter().enumerate().flat_map(|(listener, one)| {
        let routes = one.routes.iter().enumerate();
        routes.map(move |(route, one)| {
            (format!("gateway.listeners[{listener}].routes[{route}].address"), &one.target.address)
        })
    });
    for (what, HostPort { host, port }) in upstreams.chain(gateway) {
        let Ok(ip) = host.parse::<IpAddr>() else { continue };
        let address = SocketAddr::new(ip, *port);
        let is_outbound = |field: &str| field.starts_with("outbound.") || field.starts_with("gateway.");
        let mut outbound = listeners.iter().filter(|(field, _)| is_outbound(field));
        if let Some((field, _)) = outbound.find(|(_, listener)| clash(address, *listener)) {
            at(root, &what).report("loop", format!("{what} ({address}) is this proxy's own {field}"), problems);
        }
    }
}

/// The sandbox lets the sidecar write in the folder of the ledger, so nothing that it reads may be there.
pub(crate) fn ledger(settings: &Settings, root: &Cursor<'_>, problems: &mut Problems) {
    let Some(folder) = &settings.ledger.folder else { return };
    let folders = settings.policies.iter().chain(&settings.candidates).chain(&settings.outbound.tls_folder);
    let files = settings.identity_files();
    let mut read = folders.chain(&files).chain(settings.gateway.files()).chain(&settings.admin_token);
    if let Some(inside) = read.find(|path| path.starts_with(folder)) {
        let message =
            format!("the sidecar may write here, and reads {}; give the ledger a folder of its own", inside.display());
        at(root, "ledger.folder").report("conflict", message, problems);
    }
}

/// Where a field stands, by the path that a cursor writes. These checks look at what was read, when the cursors are gone.
pub(crate) fn at<'t>(root: &Cursor<'t>, path: &str) -> Cursor<'t> {
    let mut at = root.clone();
    for part in path.split('.') {
        let (name, key) = match part.split_once('[') {
            Some((name, rest)) => (name, rest.strip_suffix(']')),
            None => (part, None),
        };
        // Both are there, or the field would not have been read; else the nearest that is there has to do.
        let Some(member) = at.peek(name) else { return at };
        at = member;
        if let Some(inner) = key.and_then(|key| below(&at, key)) {
            at = inner;
        }
    }
    at
}

fn below<'t>(at: &Cursor<'t>, key: &str) -> Option<Cursor<'t>> {
    // Whether it is a list or a mapping has been checked already.
    let unheard = &mut Problems::new();
    if let Some(items) = at.items(unheard) {
        return items.into_iter().nth(key.parse().ok()?);
    }
    at.entries(unheard)?.into_iter().find(|(entry, _)| entry.text() == key).map(|(_, value)| value)
}

fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    one.port() == other.port() && (one.ip() == other.ip() || any(one.ip()) || any(other.ip()))
}
