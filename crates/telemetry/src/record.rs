//! The record of one connection, from accept to its access-log line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_identity::SpiffeId;

use crate::claims::PeerClaims;
use crate::connection::{Bytes, Direction, TlsFacts};
use crate::edge::Edge;
use crate::facts::{RuleIndex, ServerName};
use crate::metrics::Metrics;
use crate::names::{EdgeKey, Principal, Service};
use crate::open::{Open, OpenConnection};

/// One connection, open until it is finished or dropped.
pub struct ConnRecord {
    /// Which side of the edge.
    pub direction: Direction,
    /// Address of the client.
    pub src_addr: SocketAddr,
    /// Address that was dialled by the client, as far as it is known.
    pub dst_addr: Option<SocketAddr>,
    /// Verified SPIFFE ID of the other side: of the client inbound, of the server outbound. With it the connection is
    /// mutual TLS.
    pub peer: Option<SpiffeId>,
    /// Outbound: the destination's service, if the configuration knows it.
    pub service: Option<Arc<Service>>,
    /// Addresses that few connections have. Boxed, since a record is held as long as its connection.
    further: Option<Box<FurtherAddresses>>,
    /// The workload's port.
    pub port: Option<u16>,
    /// Mode of the port, or how the route is reached.
    pub mode: &'static str,
    /// The policy that decided, `namespace/name`, or `-`.
    pub policy: Arc<str>,
    /// The rule of that policy, by its index, if it is an AuthorizationPolicy that decided.
    pub rule: Option<RuleIndex>,
    /// What the client's first bytes were: `mtls`, `tls`, `plaintext` or `-`.
    pub transport: &'static str,
    /// Inbound: why there is no verified identity although it was let through.
    pub no_mtls: Option<&'static str>,
    /// What the handshake negotiated; set by [`ConnRecord::secured`].
    pub(crate) tls: Option<TlsFacts>,
    /// SNI, for the log and for `connection.sni` of AuthorizationPolicies.
    pub sni: ServerName,
    /// Bytes moved.
    pub bytes: Bytes,
    pub(crate) id: u64,
    pub(crate) started: Instant,
    pub(crate) metrics: Metrics,
    pub(crate) admitted: Option<Arc<Open>>,
    pub(crate) ended: bool,
}

/// What all streams of a tunnel share.
#[derive(Clone, Debug)]
pub struct TunnelFacts {
    /// Which side of the edge.
    pub direction: Direction,
    /// Address of the client that opened it.
    pub src_addr: SocketAddr,
    /// Address at which it ends.
    pub dst_addr: Option<SocketAddr>,
    /// Verified SPIFFE ID of the other side.
    pub peer: SpiffeId,
    /// What its handshake negotiated.
    pub tls: TlsFacts,
}

#[derive(Default)]
struct FurtherAddresses {
    /// Where the app is; set by [`ConnRecord::set_app`].
    app: Option<SocketAddr>,
    /// The load balancer that relayed the connection; set by [`ConnRecord::relayed_for`].
    balancer: Option<SocketAddr>,
    /// The address at which the tunnel ends that it is a stream of; set by [`ConnRecord::open_stream`].
    tunnel: Option<SocketAddr>,
    /// Set by [`ConnRecord::set_claims`].
    claims: PeerClaims,
    /// Set by [`ConnRecord::set_from_outside`].
    is_from_outside: bool,
}

/// Numbers the connections of this process, so that lines of one connection can be found.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl ConnRecord {
    /// Opens the record of an accepted connection.
    pub fn open(metrics: &Metrics, direction: Direction, src_addr: SocketAddr) -> Self {
        if let Some(gauge) = metrics.open.get(direction as usize) {
            gauge.inc();
        }
        Self {
            direction,
            src_addr,
            dst_addr: None,
            peer: None,
            service: None,
            further: None,
            port: None,
            mode: "-",
            policy: Arc::clone(&metrics.nothing),
            rule: None,
            transport: "-",
            no_mtls: None,
            tls: None,
            sni: ServerName::Unread,
            bytes: Bytes::default(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            started: Instant::now(),
            metrics: metrics.clone(),
            admitted: None,
            ended: false,
        }
    }

    /// Opens the record of a stream of a tunnel, which was secured when the tunnel was made. `destination` is what the stream is for,
    /// as far as it can be read.
    pub fn open_stream(metrics: &Metrics, tunnel: &TunnelFacts, destination: Option<SocketAddr>) -> Self {
        let mut record = Self::open(metrics, tunnel.direction, tunnel.src_addr);
        record.over_tunnel(tunnel);
        record.sni = ServerName::Absent;
        record.dst_addr = destination;
        record.port = destination.map(|address| address.port());
        record
    }

    /// It became a tunnel, whose streams have records of their own: there is no line for it, and it is not counted as a connection.
    /// `None` if it was not secured, and then it is a connection like others.
    pub fn into_tunnel(mut self) -> Option<TunnelFacts> {
        let facts = self.tunnel_facts()?;
        self.ended = true;
        if let Some(gauge) = self.metrics.open.get(self.direction as usize) {
            gauge.dec();
        }
        Some(facts)
    }

    /// What was recorded of a secured connection that is to carry streams.
    #[must_use]
    pub fn tunnel_facts(&self) -> Option<TunnelFacts> {
        let (peer, tls) = (self.peer.clone()?, self.tls.clone()?);
        Some(TunnelFacts { direction: self.direction, src_addr: self.src_addr, dst_addr: self.dst_addr, peer, tls })
    }

    /// It goes through a tunnel that was secured before.
    pub fn over_tunnel(&mut self, tunnel: &TunnelFacts) {
        self.transport = "mtls";
        self.peer = Some(tunnel.peer.clone());
        self.tls = Some(tunnel.tls.clone());
        self.further.get_or_insert_default().tunnel = tunnel.dst_addr;
    }

    /// Notes what the peer says of a stream.
    pub fn set_claims(&mut self, claims: PeerClaims) {
        if claims != PeerClaims::default() {
            self.further.get_or_insert_default().claims = claims;
        }
    }

    pub(crate) fn claims(&self) -> Option<&PeerClaims> {
        Some(&self.further.as_ref()?.claims)
    }

    pub(crate) fn tunnel(&self) -> Option<SocketAddr> {
        self.further.as_ref()?.tunnel
    }

    /// Number of this connection in logs.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where the app of an inbound connection is, for those forms of the access log that say so.
    pub fn set_app(&mut self, app: SocketAddr) {
        if self.metrics.access.names_upstream() {
            self.further.get_or_insert_default().app = Some(app);
        }
    }

    pub(crate) fn app(&self) -> Option<SocketAddr> {
        self.further.as_ref()?.app
    }

    /// A rule of the kernel redirected it here: what it dialled is another address than that of the listener.
    pub fn set_captured(&self) {
        self.metrics.captured.set(self.direction, self.metrics.ledger.clock().now_unix());
    }

    /// The client is one of a gateway listener. Until there is a server, the address that was dialled is that of the listener.
    pub fn set_from_outside(&mut self) {
        self.further.get_or_insert_default().is_from_outside = true;
    }

    pub(crate) fn is_from_outside(&self) -> bool {
        self.further.as_ref().is_some_and(|further| further.is_from_outside)
    }

    /// The connection is a load balancer's, which relays it for this client: its PROXY header says so.
    pub fn relayed_for(&mut self, client: SocketAddr) {
        let balancer = std::mem::replace(&mut self.src_addr, client);
        self.further.get_or_insert_default().balancer = Some(balancer);
    }

    /// The load balancer that relayed the connection.
    #[must_use]
    pub fn balancer(&self) -> Option<SocketAddr> {
        self.further.as_ref()?.balancer
    }

    /// Records a completed handshake: the verified peer, what was negotiated, and how long it took.
    pub fn secured(&mut self, peer: SpiffeId, tls: TlsFacts, took: Duration) {
        self.transport = "mtls";
        self.peer = Some(peer);
        self.metrics.secured(self.direction, &tls, took);
        self.tls = Some(tls);
    }

    /// Forgets the server that was reached: the connection is made anew.
    pub fn forget_server(&mut self) {
        (self.peer, self.tls, self.no_mtls, self.service) = (None, None, None, None);
        (self.mode, self.transport) = ("-", "-");
        if let Some(further) = &mut self.further {
            further.tunnel = None;
        }
    }

    /// The negotiated version of TLS.
    #[must_use]
    pub fn tls_version(&self) -> Option<&'static str> {
        self.tls.as_ref().map(|tls| tls.version)
    }

    /// The connection is admitted: it counts as opened, and is listed until it ends.
    pub fn admit(&mut self) {
        if let Some(port) = self.port {
            // The dial succeeded, so the port is real and not a number that a client made up.
            self.metrics.ports.allow(port);
        }
        let edge = self.edge();
        edge.opened();
        let facts = OpenConnection {
            id: self.id,
            direction: self.direction,
            src_addr: self.src_addr,
            dst_addr: self.dst_addr,
            peer: self.peer.as_ref().map(ToString::to_string),
            service: self.service.clone(),
            port: self.port.map_or_else(|| "-".to_owned(), |port| port.to_string()),
            mode: self.mode,
            policy: Arc::clone(&self.policy),
            transport: self.transport,
            root: self.tls.as_ref().map(|tls| Arc::clone(&tls.root)),
            age: Duration::ZERO,
            received: 0,
            sent: 0,
        };
        let open = Arc::new(Open::new(facts, self.bytes.clone(), edge, self.observe(), self.started));
        self.metrics.tcp.open().insert(Arc::clone(&open));
        self.admitted = Some(open);
    }

    /// Counts a TLS peer that omitted close_notify after both directions were done. That is not an outcome of its own.
    pub fn count_truncated_after_close(&self) {
        self.metrics.truncated_after_close.with(&[self.direction.reporter()]).add(1);
    }

    pub(crate) fn edge(&self) -> Arc<Edge> {
        let peer = self.peer.clone().map_or(Principal::Unknown, Principal::Id);
        let mutual_tls = self.peer.is_some();
        let key = EdgeKey { direction: self.direction, peer, service: self.service.clone(), mutual_tls };
        self.metrics.tcp.edge(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::tests::own;
    use crate::outcome::{Decision, Ending, ResponseFlag};

    fn record(metrics: &Metrics, direction: Direction) -> ConnRecord {
        ConnRecord::open(metrics, direction, "127.0.0.1:9".parse().unwrap())
    }

    fn peer(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/front/sa/{name}")).unwrap()
    }

    fn ending(decision: Decision, reason: &'static str, flag: ResponseFlag) -> Ending {
        Ending { decision, reason, hint: "", flag, error: None }
    }

    /// The value of the one line that has all of these in it.
    fn value(metrics: &Metrics, parts: &[&str]) -> Option<f64> {
        let text = metrics.encode().unwrap();
        let mut found =
            text.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
        let line = found.next()?;
        assert_eq!(found.next(), None, "{parts:?} names more than one series");
        Some(line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    #[test]
    fn a_record_counts_once_whether_finished_or_dropped() {
        let metrics = Metrics::new("0.0.0", own()).unwrap();
        record(&metrics, Direction::Inbound).finish(&ending(Decision::Deny, "x", ResponseFlag::Deny));
        let mut dropped = record(&metrics, Direction::Inbound);
        dropped.peer = Some(peer("web"));
        dropped.admit();
        drop(dropped);
        assert_eq!(value(&metrics, &["decisions_total", "reason=\"x\"", "decision=\"deny\""]), Some(1.0));
        assert_eq!(value(&metrics, &["decisions_total", "reason=\"shutdown\"", "decision=\"allow\""]), Some(1.0));
        assert_eq!(value(&metrics, &["istio_tcp_sockets_open", "destination"]), Some(0.0));
        assert_eq!(value(&metrics, &["connections_opened_total", "mutual_tls", "sa/web"]), Some(1.0));
        assert_eq!(value(&metrics, &["connections_closed_total", "mutual_tls", "sa/web"]), Some(1.0));
        assert_eq!(value(&metrics, &["connections_failed_total{", "response_flags=\"DENY\""]), Some(1.0));
        assert_eq!(value(&metrics, &["no_mtls_reason_total", "reason=\"x\""]), Some(1.0));
    }

    #[test]
    fn only_a_client_that_left_is_no_failure() {
        let metrics = Metrics::new("0.0.0", own()).unwrap();
        record(&metrics, Direction::Inbound).finish(&ending(Decision::Deny, "client_gone", ResponseFlag::Abandoned));
        assert_eq!(value(&metrics, &["connections_failed_total{"]), None);
        // A task that is cancelled, or panics, before its connection was let through.
        drop(record(&metrics, Direction::Inbound));
        assert_eq!(value(&metrics, &["connections_failed_total{", "response_flags=\"-\""]), Some(1.0));
    }

    #[test]
    fn bytes_advance_while_the_connection_lives_and_are_not_counted_twice() {
        let metrics = Metrics::new("0.0.0", own()).unwrap();
        let mut open = record(&metrics, Direction::Inbound);
        open.peer = Some(peer("web"));
        open.admit();
        let received = &["istio_tcp_received_bytes_total{", "mutual_tls"];
        assert_eq!(value(&metrics, received), Some(0.0));
        open.bytes.received.store(5, Ordering::Relaxed);
        assert_eq!(value(&metrics, received), Some(5.0));
        open.bytes.received.store(12, Ordering::Relaxed);
        open.bytes.sent.store(3, Ordering::Relaxed);
        assert_eq!(metrics.open_connections().first().map(|open| (open.received, open.sent)), Some((12, 3)));
        open.finish(&ending(Decision::Allow, "-", ResponseFlag::None));
        assert_eq!(value(&metrics, received), Some(12.0));
        assert_eq!(value(&metrics, &["istio_tcp_sent_bytes_total{", "mutual_tls"]), Some(3.0));
        assert!(metrics.open_connections().is_empty());
    }

    /// Peers choose their identities, and must not choose how large our metrics get.
    #[test]
    fn ten_thousand_identities_leave_the_metrics_flat() {
        let metrics = Metrics::new("0.0.0", own()).unwrap();
        for n in 0..10_000 {
            let mut one = record(&metrics, Direction::Inbound);
            one.peer = Some(peer(&format!("p{n}")));
            one.admit();
            one.finish(&ending(Decision::Allow, "-", ResponseFlag::None));
        }
        let text = metrics.encode().unwrap();
        let series = text.lines().filter(|line| line.starts_with("istio_tcp_connections_opened_total{")).count();
        assert_eq!(series, crate::tcp::MAX_PRINCIPALS);
        assert!(text.contains("sa/p9999\""), "the newest has a series");
    }

    #[test]
    fn where_all_peers_are_live_a_new_one_is_other() {
        let metrics = Metrics::new("0.0.0", own()).unwrap();
        let open = |n: usize| {
            let mut one = record(&metrics, Direction::Inbound);
            one.peer = Some(peer(&format!("p{n}")));
            one.admit();
            one
        };
        let mut live: Vec<_> = (0..crate::tcp::MAX_PRINCIPALS).map(open).collect();
        let late = open(5000);
        assert_eq!(value(&metrics, &["connections_opened_total{", "source_principal=\"other\""]), Some(1.0));
        assert_eq!(value(&metrics, &["portcullis_peers_crowded_out_total"]), Some(1.0));
        drop((late, live.pop()));
        let _room = open(6000);
        assert_eq!(value(&metrics, &["connections_opened_total{", "sa/p6000\""]), Some(1.0));
    }

    #[test]
    fn a_port_is_a_label_only_if_an_app_listens_on_it() {
        let metrics = Metrics::new("0.0.0", own()).unwrap();
        let refused = |port: u16| {
            let mut one = record(&metrics, Direction::Inbound);
            one.port = Some(port);
            one.finish(&ending(Decision::Deny, "x", ResponseFlag::Deny));
        };
        metrics.allow_port_label(8080);
        refused(8080);
        (1000..2000).for_each(refused);
        assert_eq!(value(&metrics, &["decisions_total", "port=\"8080\""]), Some(1.0));
        assert_eq!(value(&metrics, &["decisions_total", "port=\"other\""]), Some(1000.0));
        let mut accepted = record(&metrics, Direction::Inbound);
        accepted.port = Some(1500);
        accepted.admit();
        accepted.finish(&ending(Decision::Allow, "-", ResponseFlag::None));
        refused(1500);
        assert_eq!(value(&metrics, &["decisions_total", "port=\"1500\"", "deny"]), Some(1.0));
    }
}
