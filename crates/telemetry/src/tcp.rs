//! The Istio TCP metrics: one set of counters for each edge of the graph, and the connections that live on it.
//!
//! Kiali and Istio's dashboards take the rate of bytes, so bytes must advance while a connection lives, not at its end.
//! Each open connection counts into a cell of its own, and what has been added since is moved to its edge whenever the
//! metrics are read. So the copy loop touches nothing shared, and a scrape is exact.
//!
//! Principals are chosen by peers, so the number of edges is bounded: once [`MAX_PRINCIPALS`] are known, the one that has
//! been idle longest is evicted; if none is idle, new ones are counted as `other`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter as ProtoCounter, Metric, MetricFamily, MetricType};

use crate::edge::{Edge, KINDS, lock};
use crate::names::{EdgeKey, LABELS, LocalWorkload, Principal};
use crate::open::{Open, OpenConnections};

/// Authenticated peers that have a series of their own at once.
pub const MAX_PRINCIPALS: usize = 1000;
/// An edge without a connection for so long is forgotten.
const IDLE: Duration = Duration::from_secs(3600);

/// All edges, and the connections that are open on them.
#[derive(Clone)]
pub(crate) struct TcpMetrics(Arc<Shared>);

struct Shared {
    own: LocalWorkload,
    descs: Vec<Desc>,
    edges: Mutex<HashMap<EdgeKey, Arc<Edge>>>,
    open: OpenConnections,
    crowded_out: AtomicU64,
}

impl TcpMetrics {
    pub(crate) fn new(own: LocalWorkload) -> Result<Self, prometheus::Error> {
        let mut names: Vec<String> = LABELS.iter().map(|name| (*name).to_owned()).collect();
        names.push("response_flags".to_owned());
        let desc = |name: &str, help: &str| Desc::new(name.to_owned(), help.to_owned(), names.clone(), HashMap::new());
        let mut descs = KINDS.iter().map(|(_, name, help)| desc(name, help)).collect::<Result<Vec<_>, _>>()?;
        descs.push(Desc::new(CROWDED_OUT.0.to_owned(), CROWDED_OUT.1.to_owned(), Vec::new(), HashMap::new())?);
        let open = OpenConnections::default();
        Ok(Self(Arc::new(Shared { own, descs, edges: Mutex::default(), open, crowded_out: AtomicU64::new(0) })))
    }

    pub(crate) fn own(&self) -> &LocalWorkload {
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

    pub(crate) fn flush(&self) {
        self.0.open.for_each(Open::flush);
    }
}

const CROWDED_OUT: (&str, &str) = (
    "portcullis_peers_crowded_out_total",
    "Connections of authenticated peers that are counted as `other`, because too many peers are live.",
);

/// Whether one more peer fits. At the limit the peer that has been idle longest is evicted.
fn make_room(edges: &mut HashMap<EdgeKey, Arc<Edge>>) -> bool {
    let named = edges.iter().filter(|(key, _)| matches!(key.peer, Principal::Id(_)));
    if named.clone().count() < MAX_PRINCIPALS {
        return true;
    }
    // A reference besides the map's is held by an open connection.
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
