//! The Istio TCP metrics: one set of counters for each edge of the graph, and the connections that live on it.
//!
//! Kiali and Istio's dashboards take the rate of bytes, so bytes must advance while a connection lives, not at its end.
//! Each open connection counts into a cell of its own, and what has been added since is moved to its edge whenever the
//! metrics are read. So the copy loop touches nothing shared, and a scrape is exact.
//!
//! Principals are chosen by peers, so the number of edges is bounded: once [`MAX_PRINCIPALS`] are known, the one that has
//! been idle longest makes room, and where all are live, new ones are counted as `other`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter as ProtoCounter, LabelPair, Metric, MetricFamily, MetricType};

use crate::names::{EdgeKey, LABELS, Own, Principal, values};
use crate::open::{Open, OpenConnections};

/// Authenticated peers that have a series of their own at once.
pub const MAX_PRINCIPALS: usize = 1000;
/// An edge without a connection for so long is forgotten.
const IDLE: Duration = Duration::from_secs(3600);

/// Why a connection ended early, in ztunnel's words.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ResponseFlag {
    /// It ended as it should.
    None,
    /// Policy refused it, or closed it.
    Deny,
    /// The destination could not be reached.
    Connect,
    /// The handshake failed.
    TlsFailure,
    /// There was no usable identity of our own.
    IdentityError,
    /// The client went away by itself before anything was decided: nobody's failure, so it is counted as none.
    Abandoned,
}

impl ResponseFlag {
    /// Those that are counted.
    const ALL: [Self; 5] = [Self::None, Self::Deny, Self::Connect, Self::TlsFailure, Self::IdentityError];

    const fn label(self) -> &'static str {
        match self {
            Self::None | Self::Abandoned => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::IdentityError => "IDENTITY_ERROR",
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Opened,
    Closed,
    Failed,
    Received,
    Sent,
}

const KINDS: [(Kind, &str, &str); 5] = [
    (Kind::Opened, "istio_tcp_connections_opened_total", "Connections that reached the other side."),
    (Kind::Closed, "istio_tcp_connections_closed_total", "Opened connections that have ended."),
    (Kind::Failed, "istio_tcp_connections_failed_total", "Connections that were refused or could not be made."),
    (Kind::Received, "istio_tcp_received_bytes_total", "Bytes from client to server, for both reporters."),
    (Kind::Sent, "istio_tcp_sent_bytes_total", "Bytes from server to client, for both reporters."),
];

/// The counters of one edge.
pub(crate) struct Edge {
    labels: Vec<LabelPair>,
    opened: AtomicU64,
    closed: [AtomicU64; ResponseFlag::ALL.len()],
    failed: [AtomicU64; ResponseFlag::ALL.len()],
    received: AtomicU64,
    sent: AtomicU64,
    used: Mutex<Instant>,
}

impl Edge {
    fn new(own: &Own, key: &EdgeKey) -> Self {
        let labels = LABELS.iter().zip(values(own, key)).map(|(name, value)| pair(name, value)).collect();
        Self {
            labels,
            opened: AtomicU64::new(0),
            closed: Default::default(),
            failed: Default::default(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            used: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, flag: ResponseFlag) {
        add(&self.closed, flag);
        *lock(&self.used) = Instant::now();
    }

    pub(crate) fn failed(&self, flag: ResponseFlag) {
        add(&self.failed, flag);
        *lock(&self.used) = Instant::now();
    }

    /// Bytes that have passed since the last call.
    pub(crate) fn moved(&self, received: u64, sent: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    fn idle_since(&self) -> Instant {
        *lock(&self.used)
    }

    fn write(&self, kind: Kind, metrics: &mut Vec<Metric>) {
        let mut metric = |flag: ResponseFlag, counter: &AtomicU64| {
            let mut labels = self.labels.clone();
            labels.push(pair("response_flags", flag.label().to_owned()));
            let mut value = ProtoCounter::default();
            // A float counts exactly up to 2^53, some 9 PB of traffic.
            #[allow(clippy::cast_precision_loss)]
            value.set_value(counter.load(Ordering::Relaxed) as f64);
            let mut metric = Metric::default();
            metric.set_label(labels);
            metric.set_counter(value);
            metrics.push(metric);
        };
        let opened = self.opened.load(Ordering::Relaxed) > 0;
        match kind {
            Kind::Opened if opened => metric(ResponseFlag::None, &self.opened),
            Kind::Received if opened => metric(ResponseFlag::None, &self.received),
            Kind::Sent if opened => metric(ResponseFlag::None, &self.sent),
            Kind::Closed | Kind::Failed => {
                let counters = if matches!(kind, Kind::Closed) { &self.closed } else { &self.failed };
                for (flag, counter) in ResponseFlag::ALL.into_iter().zip(counters) {
                    if counter.load(Ordering::Relaxed) > 0 {
                        metric(flag, counter);
                    }
                }
            }
            Kind::Opened | Kind::Received | Kind::Sent => {}
        }
    }
}

fn add(counters: &[AtomicU64; ResponseFlag::ALL.len()], flag: ResponseFlag) {
    if let Some(counter) = counters.get(flag as usize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn pair(name: &str, value: String) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value);
    pair
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only whole values are stored, so what a panic left behind is still one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All edges, and the connections that are open on them.
#[derive(Clone)]
pub(crate) struct TcpMetrics(Arc<Shared>);

struct Shared {
    own: Own,
    descs: Vec<Desc>,
    edges: Mutex<HashMap<EdgeKey, Arc<Edge>>>,
    open: OpenConnections,
    crowded_out: AtomicU64,
}

impl TcpMetrics {
    pub(crate) fn new(own: Own) -> Result<Self, prometheus::Error> {
        let mut names: Vec<String> = LABELS.iter().map(|name| (*name).to_owned()).collect();
        names.push("response_flags".to_owned());
        let desc = |name: &str, help: &str| Desc::new(name.to_owned(), help.to_owned(), names.clone(), HashMap::new());
        let mut descs = KINDS.iter().map(|(_, name, help)| desc(name, help)).collect::<Result<Vec<_>, _>>()?;
        descs.push(Desc::new(CROWDED_OUT.0.to_owned(), CROWDED_OUT.1.to_owned(), Vec::new(), HashMap::new())?);
        let open = OpenConnections::default();
        Ok(Self(Arc::new(Shared { own, descs, edges: Mutex::default(), open, crowded_out: AtomicU64::new(0) })))
    }

    pub(crate) fn own(&self) -> &Own {
        &self.0.own
    }

    pub(crate) fn open(&self) -> &OpenConnections {
        &self.0.open
    }

    /// The counters of an edge; those of `other` where there is no room for one more peer.
    pub(crate) fn edge(&self, mut key: EdgeKey) -> Arc<Edge> {
        let mut edges = lock(&self.0.edges);
        if let Some(edge) = edges.get(&key) {
            return Arc::clone(edge);
        }
        if matches!(key.peer, Principal::Id(_)) && !make_room(&mut edges) {
            self.0.crowded_out.fetch_add(1, Ordering::Relaxed);
            key.peer = Principal::Other;
        }
        Arc::clone(edges.entry(key).or_insert_with_key(|key| Arc::new(Edge::new(&self.0.own, key))))
    }

    fn flush(&self) {
        self.0.open.for_each(Open::flush);
    }
}

const CROWDED_OUT: (&str, &str) = (
    "portcullis_peers_crowded_out_total",
    "Connections of authenticated peers that are counted as `other`, because too many peers are live.",
);

/// Whether one more peer fits, after the one that has been idle for longest has made room for it if need be.
fn make_room(edges: &mut HashMap<EdgeKey, Arc<Edge>>) -> bool {
    let named = edges.iter().filter(|(key, _)| matches!(key.peer, Principal::Id(_)));
    if named.clone().count() < MAX_PRINCIPALS {
        return true;
    }
    // Whoever holds an edge besides this map has a connection open.
    let idle = named.filter(|(_, edge)| Arc::strong_count(edge) == 1);
    let Some(longest) = idle.min_by_key(|(_, edge)| edge.idle_since()).map(|(key, _)| key.clone()) else {
        return false;
    };
    edges.remove(&longest).is_some()
}

impl Collector for TcpMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.flush();
        let mut edges = lock(&self.0.edges);
        edges.retain(|_, edge| Arc::strong_count(edge) > 1 || edge.idle_since().elapsed() < IDLE);
        let edges: Vec<Arc<Edge>> = edges.values().cloned().collect();
        let mut families: Vec<MetricFamily> = Vec::new();
        for (kind, name, help) in KINDS {
            let mut metrics = Vec::new();
            edges.iter().for_each(|edge| edge.write(kind, &mut metrics));
            // The registry refuses a family without a metric.
            if !metrics.is_empty() {
                families.push(family(name, help, metrics));
            }
        }
        let mut value = ProtoCounter::default();
        #[allow(clippy::cast_precision_loss)]
        value.set_value(self.0.crowded_out.load(Ordering::Relaxed) as f64);
        let mut metric = Metric::default();
        metric.set_counter(value);
        families.push(family(CROWDED_OUT.0, CROWDED_OUT.1, vec![metric]));
        families
    }
}

fn family(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(metrics);
    family
}
