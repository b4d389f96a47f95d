//! Connections, and a plain ledger that sums them up as a sidecar does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_api::{
    Client, DayCount, DecidingPolicy, Direction, Mode, Observation, Observations, PortMode, ProxyInfo, RefusedFor,
    Timestamp, Transport,
};
use portcullis_report::Answer;
use portcullis_report::Window;
use portcullis_report::readiness::Options;

pub(crate) const MINUTE: i64 = 60;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
/// 15:00 UTC.
pub(crate) const NOW: i64 = 20_000 * DAY + 15 * HOUR;
pub(crate) const WEEK: u64 = 7 * 86_400;

/// One connection to the workload.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// When it was accepted, in seconds before now.
    pub(crate) ago: i64,
    /// How long bytes moved.
    pub(crate) lasted: i64,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
    pub(crate) identity: Option<String>,
    pub(crate) address: IpAddr,
    pub(crate) dialled: IpAddr,
    pub(crate) sni: Option<String>,
    /// Why it was refused; it was let through if not.
    pub(crate) refused: Option<&'static str>,
}

impl Connection {
    pub(crate) fn at(&self) -> i64 {
        NOW - self.ago
    }

    /// The last moment at which it was seen.
    pub(crate) fn until(&self) -> i64 {
        if self.refused.is_some() { self.at() } else { (self.at() + self.lasted).min(NOW) }
    }
}

pub(crate) fn plaintext(address: &str, ago: i64) -> Connection {
    Connection {
        ago,
        lasted: 0,
        port: 8080,
        transport: Transport::Plaintext,
        identity: None,
        address: address.parse().unwrap(),
        dialled: "10.0.0.2".parse().unwrap(),
        sni: None,
        refused: None,
    }
}

pub(crate) fn mtls(account: &str, ago: i64) -> Connection {
    let identity = Some(format!("spiffe://cluster.local/ns/shop/sa/{account}"));
    Connection { transport: Transport::Mtls, identity, ..plaintext("10.0.0.9", ago) }
}

/// Often enough to be sure.
pub(crate) fn often(connection: &Connection) -> Vec<Connection> {
    (0..200).map(|n| Connection { ago: connection.ago + n * HOUR, ..connection.clone() }).collect()
}

/// What a ledger makes of connections.
pub(crate) fn ledger(connections: &[Connection]) -> Vec<Observation> {
    let mut sorted = connections.to_vec();
    sorted.sort_by_key(|connection| std::cmp::Reverse(connection.ago));
    let mut found: BTreeMap<(u16, Transport, Option<String>, Option<IpAddr>), Observation> = BTreeMap::new();
    for connection in &sorted {
        let by = connection.identity.is_none().then_some(connection.address);
        let key = (connection.port, connection.transport, connection.identity.clone(), by);
        let at = Timestamp::from_unix(connection.at());
        let observation = found.entry(key).or_insert_with(|| Observation {
            direction: Direction::Inbound,
            port: connection.port,
            transport: connection.transport,
            peer: Client { identity: connection.identity.clone(), ..Client::default() },
            allowed: 0,
            refused: 0,
            bytes_received: 0,
            bytes_sent: 0,
            first_seen: at,
            last_seen: at,
            last_refusal: None,
            days: Vec::new(),
        });
        observation.peer.address = Some(connection.address);
        observation.peer.dialled = Some(connection.dialled);
        observation.peer.server_name = connection.sni.clone().or_else(|| observation.peer.server_name.take());
        observation.last_seen = observation.last_seen.max(Timestamp::from_unix(connection.until()));
        if observation.days.last().is_none_or(|last| last.day != at.day()) {
            observation.days.push(DayCount { day: at.day(), ..DayCount::default() });
        }
        let today = observation.days.last_mut().unwrap();
        if let Some(reason) = connection.refused {
            observation.refused += 1;
            today.refused += 1;
            let policy = "shop/x".to_owned();
            observation.last_refusal = Some(RefusedFor { reason: reason.to_owned(), policy, at });
        } else {
            observation.allowed += 1;
            today.allowed += 1;
            observation.bytes_received += 100;
            observation.bytes_sent += 100;
        }
    }
    let today = Timestamp::from_unix(NOW).day();
    let kept = |mut observation: Observation| {
        observation.days.retain(|count| count.day > today - 8);
        observation
    };
    found.into_values().map(kept).collect()
}

/// A sidecar that has observed for long, of a PERMISSIVE workload with ports 8080 and 9090.
pub(crate) fn sidecar(observations: Vec<Observation>) -> Observations {
    let decided_by = DecidingPolicy {
        scope: "namespace".to_owned(),
        namespace: Some("shop".to_owned()),
        name: Some("default".to_owned()),
        file: Some("policies/shop.yaml".to_owned()),
        line: Some(3),
        ..DecidingPolicy::default()
    };
    let port = |port: Option<u16>| PortMode {
        port,
        mode: Mode::Permissive,
        decided_by: decided_by.clone(),
        server_first: false,
    };
    Observations {
        proxy: ProxyInfo {
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
            service: "cart".to_owned(),
            identity: "spiffe://cluster.local/ns/shop/sa/cart".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            default_mode: Mode::Permissive,
            labels: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
            now: Timestamp::from_unix(NOW),
            ..ProxyInfo::default()
        },
        since: Timestamp::from_unix(NOW - 30 * DAY),
        observed_seconds: 30 * 86_400,
        is_persistent: true,
        evicted: 0,
        ports: vec![port(Some(8080)), port(Some(9090)), port(None)],
        observations,
    }
}

pub(crate) fn answer(observations: Observations) -> Answer {
    Answer { label: "http://10.0.0.2:15000".to_owned(), observations: Ok(observations) }
}

pub(crate) fn silent() -> Answer {
    Answer { label: "http://10.0.0.7:15000".to_owned(), observations: Err("connection refused".to_owned()) }
}

pub(crate) fn options() -> Options {
    Options {
        window: Window { seconds: WEEK },
        min_observation: 86_400,
        namespace: None,
        now: Timestamp::from_unix(NOW),
    }
}
