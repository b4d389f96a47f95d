//! Which connection is meant, and which entry of another proxy is its other side.

use std::net::{IpAddr, SocketAddr};

use portcullis_api::{Direction, EndedConnection, ProxyInfo};

use crate::commands::age;

/// The connection that is asked about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Which {
    /// The last one that was refused.
    Last,
    /// By its number in logs.
    Number(u64),
    /// By an address of either side.
    Address(IpAddr, Option<u16>),
}

/// One entry of one proxy.
#[derive(Clone, Debug)]
pub(super) struct SeenConn {
    pub(super) proxy: ProxyInfo,
    /// Which of the proxies that answer.
    pub(super) proxy_index: usize,
    pub(super) connection: EndedConnection,
    /// Seconds since it ended.
    pub(super) age: u64,
}

/// Both sides of a connection end within this many seconds: a handshake has 10, and clocks are compared to the second.
const TOGETHER: u64 = 12;

impl Which {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("last") {
            return Ok(Self::Last);
        }
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(address.ip().to_canonical(), Some(address.port())));
        }
        match text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => Ok(Self::Address(address.to_canonical(), None)),
            Err(_) => Err("write the conn_id of a log line, an IP address, IP:PORT, or last".to_owned()),
        }
    }

    fn is(&self, connection: &EndedConnection) -> bool {
        match self {
            Self::Last => true,
            Self::Number(number) => connection.conn_id == *number,
            Self::Address(ip, port) => [Some(&connection.source), connection.destination.as_ref()]
                .into_iter()
                .flatten()
                .filter_map(|address| address.parse::<SocketAddr>().ok())
                .any(|address| address.ip().to_canonical() == *ip && port.is_none_or(|port| port == address.port())),
        }
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Number(number) => write!(f, "conn_id {number}"),
            Self::Address(ip, None) => write!(f, "{ip}"),
            Self::Address(ip, Some(port)) => write!(f, "{}", SocketAddr::new(*ip, *port)),
        }
    }
}

impl SeenConn {
    pub(super) fn is_inbound(&self) -> bool {
        self.connection.direction == Direction::Inbound
    }

    /// Not let through, or ended for a reason.
    pub(super) fn is_refused(&self) -> bool {
        self.connection.decision == "deny"
    }

    fn has_reason(&self) -> bool {
        !matches!(self.connection.reason.as_str(), "" | "-")
    }
}

/// The last refused one that is meant; if a number or an address is named and none of its connections was refused, the last that ended for
/// a reason.
pub(super) fn choose<'a>(
    pool: &'a [SeenConn],
    which: &Which,
    is_meant: impl Fn(&SeenConn) -> bool,
) -> Option<&'a SeenConn> {
    let meant = || pool.iter().filter(|seen| which.is(&seen.connection) && is_meant(seen));
    // Of two sides of one refusal that one which decided: the server's.
    let order = |seen: &&SeenConn| (std::cmp::Reverse(seen.age), seen.is_inbound(), seen.connection.sequence);
    let refused = meant().filter(|seen| seen.is_refused()).max_by_key(order);
    refused.or_else(|| meant().filter(|seen| seen.has_reason()).max_by_key(order))
}

/// What to say where there is none.
pub(super) fn nothing(pool: &[SeenConn], which: &Which, proxies: usize) -> String {
    let ended = pool.iter().filter(|seen| which.is(&seen.connection)).count();
    match which {
        Which::Last => format!("none of the last {ended} connections of {proxies} proxies was refused"),
        which if ended == 0 => {
            format!(
                "{proxies} proxies remember no connection {which}; each keeps about a thousand, so look into the access log for an older one"
            )
        }
        which => {
            let latest =
                pool.iter().filter(|seen| which.is(&seen.connection)).map(|seen| seen.age).min().unwrap_or_default();
            #[allow(clippy::cast_precision_loss, reason = "an age is far below 2^53 seconds")]
            let latest = age::short(latest as f64);
            format!("{ended} connections of {which} ended, the last {latest} ago, and none was refused")
        }
    }
}

/// The entry of the other side's proxy, if it was asked and one fits.
pub(super) fn other_side<'a>(pool: &'a [SeenConn], of: &SeenConn) -> Option<&'a SeenConn> {
    let scored = pool.iter().filter_map(|seen| Some((fit(of, seen)?, seen)));
    scored.max_by_key(|((score, near), seen)| (*score, *near, seen.connection.sequence)).map(|(_, seen)| seen)
}

/// How well two entries fit as the two sides of one connection; `None` if they cannot be.
fn fit(one: &SeenConn, other: &SeenConn) -> Option<(u32, std::cmp::Reverse<u64>)> {
    let apart = one.age.abs_diff(other.age);
    if one.connection.direction == other.connection.direction || apart > TOGETHER {
        return None;
    }
    let (server, client) = if one.is_inbound() { (one, other) } else { (other, one) };
    // An identity that was verified and is another's rules a pair out.
    let verified = |peer: Option<&String>, proxy: &ProxyInfo| peer.map(|peer| *peer == proxy.identity);
    let known = [
        verified(server.connection.peer.as_ref(), &client.proxy),
        verified(client.connection.peer.as_ref(), &server.proxy),
    ];
    if known.contains(&Some(false)) {
        return None;
    }
    // One side let it through and answered: the other one did not refuse it.
    let answered = |seen: &SeenConn| !seen.is_refused() && seen.connection.bytes_sent > 0;
    if (server.is_refused() && answered(client)) || (client.is_refused() && answered(server)) {
        return None;
    }
    let identities = known.iter().filter(|known| **known == Some(true)).count();
    let address =
        |seen: &SeenConn| seen.connection.destination.as_ref().and_then(|address| address.parse::<SocketAddr>().ok());
    let (at_server, at_client) = (address(server), address(client));
    let same_address = at_server.is_some() && at_server == at_client;
    let dialled = client.connection.port.or_else(|| at_client.map(|address| address.port()));
    let same_port =
        dialled.is_some() && (dialled == at_server.map(|address| address.port()) || dialled == server.connection.port);
    let service = format!("{}.{}", server.proxy.service, server.proxy.namespace);
    let same_service = client.connection.service.as_ref().is_some_and(|name| {
        *name == server.proxy.service || *name == service || name.starts_with(&format!("{service}."))
    });
    let both_refused = server.is_refused() && client.is_refused();
    let parts = [(identities > 0, 4), (same_address, 4), (same_service, 3), (same_port, 2), (both_refused, 1)];
    let score = parts.iter().filter(|(holds, _)| *holds).map(|(_, points)| points).sum::<u32>();
    // The same port alone (2) is not enough: other pairs use it too.
    (score >= 3).then_some((score, std::cmp::Reverse(apart)))
}

#[cfg(test)]
mod tests {
    use portcullis_api::{Timestamp, Transport};

    use super::*;

    fn seen(workload: &str, direction: Direction, age: u64, change: impl FnOnce(&mut EndedConnection)) -> SeenConn {
        let proxy = ProxyInfo {
            name: workload.to_owned(),
            namespace: "shop".to_owned(),
            service: workload.to_owned(),
            identity: format!("spiffe://cluster.local/ns/shop/sa/{workload}"),
            ..ProxyInfo::default()
        };
        let mut connection = EndedConnection {
            sequence: 1,
            conn_id: 1,
            ended_at: Timestamp::default(),
            duration_ms: 1,
            direction,
            source: "10.0.0.1:4000".to_owned(),
            destination: Some("10.0.0.2:8080".to_owned()),
            peer: None,
            service: None,
            port: Some(8080),
            mode: "STRICT".to_owned(),
            transport: Transport::Unknown,
            decision: "deny".to_owned(),
            reason: "unknown_ca".to_owned(),
            hint: String::new(),
            error: None,
            policy: "-".to_owned(),
            rule: None,
            tls: None,
            server_name: None,
            bytes_received: 0,
            bytes_sent: 0,
        };
        change(&mut connection);
        SeenConn { proxy, proxy_index: 0, connection, age }
    }

    #[test]
    fn numbers_addresses_and_last_are_told_apart() {
        let ip = |text: &str| text.parse().unwrap();
        assert_eq!(Which::parse("last"), Ok(Which::Last));
        assert_eq!(Which::parse("17"), Ok(Which::Number(17)));
        assert_eq!(Which::parse("10.0.0.9"), Ok(Which::Address(ip("10.0.0.9"), None)));
        assert_eq!(Which::parse("[::ffff:10.0.0.9]:1"), Ok(Which::Address(ip("10.0.0.9"), Some(1))));
        assert_eq!(Which::parse("[fd00::1]"), Ok(Which::Address(ip("fd00::1"), None)));
        assert!(Which::parse("cart").is_err());
    }

    #[test]
    fn the_last_refusal_is_that_of_the_side_that_refused() {
        let inbound = seen("cart", Direction::Inbound, 5, |_| ());
        let outbound = seen("web", Direction::Outbound, 5, |connection| connection.reason = "peer_alert".to_owned());
        let allowed = seen("cart", Direction::Inbound, 1, |connection| {
            (connection.decision, connection.reason) = ("allow".to_owned(), "-".to_owned());
        });
        let older = seen("cart", Direction::Inbound, 50, |_| ());
        let pool = [older, outbound, inbound, allowed];
        let chosen = choose(&pool, &Which::Last, |_| true).unwrap();
        assert_eq!((chosen.proxy.name.as_str(), chosen.age), ("cart", 5));
        assert_eq!(
            choose(&pool, &Which::Last, |seen| seen.proxy.name == "web").unwrap().connection.reason,
            "peer_alert"
        );
        assert!(choose(&pool[3..], &Which::Last, |_| true).is_none());
        assert!(nothing(&pool[3..], &Which::Last, 2).contains("none of the last 1 connections of 2 proxies"));
        let unknown = Which::parse("10.9.9.9").unwrap();
        assert!(nothing(&pool, &unknown, 2).contains("remember no connection 10.9.9.9"));
    }

    #[test]
    fn two_sides_are_matched_by_address_and_identity_and_never_by_time_alone() {
        let server = seen("cart", Direction::Inbound, 5, |_| ());
        let by_address = seen("web", Direction::Outbound, 6, |_| ());
        assert_eq!(other_side(std::slice::from_ref(&by_address), &server).unwrap().proxy.name, "web");
        // Another address and no identity: only the port is the same.
        let elsewhere = |age| {
            seen("pay", Direction::Outbound, age, |connection| {
                connection.destination = Some("10.0.0.7:8080".to_owned())
            })
        };
        assert!(fit(&server, &elsewhere(5)).is_none_or(|(score, _)| score == 3), "port and refusal");
        let strange = seen("pay", Direction::Outbound, 5, |connection| {
            connection.destination = Some("10.0.0.7:9000".to_owned());
            connection.port = Some(9000);
        });
        assert!(other_side(&[strange], &server).is_none());
        // A verified identity of somebody else.
        let other = seen("web", Direction::Outbound, 5, |connection| {
            connection.peer = Some("spiffe://cluster.local/ns/shop/sa/pay".to_owned())
        });
        assert!(other_side(&[other], &server).is_none());
        let answered = seen("web", Direction::Outbound, 5, |connection| {
            (connection.decision, connection.bytes_sent) = ("allow".to_owned(), 9);
        });
        assert!(other_side(&[answered], &server).is_none(), "it was let through");
        let late = seen("web", Direction::Outbound, 5 + TOGETHER + 1, |_| ());
        assert!(other_side(&[late], &server).is_none());
        assert!(other_side(&[seen("cart", Direction::Inbound, 5, |_| ())], &server).is_none(), "the same side");
        // The better one of two.
        let pool = [elsewhere(5), by_address];
        assert_eq!(other_side(&pool, &server).unwrap().proxy.name, "web");
    }
}
