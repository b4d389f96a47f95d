//! A counter with labels, keyed by the whole label values.
//!
//! `prometheus::CounterVec` hashes the values one after another without a separator and compares nothing else, so
//! ("ab", "c") and ("a", "bc") share one counter, and the first set's labels are exported for both. This collector
//! keeps the values themselves as the key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter as ProtoCounter, LabelPair, Metric, MetricFamily, MetricType};

/// A family of counters with the same name and the same `N` label names.
#[derive(Clone)]
pub struct CounterFamily<const N: usize> {
    desc: Desc,
    names: &'static [&'static str; N],
    cells: Arc<RwLock<HashMap<[String; N], Counter>>>,
}

/// A handle to one counter of a family: cheap to keep, one atomic addition to use.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds to the counter.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Raises the counter to a total that is counted elsewhere; never lowers it.
    pub fn raise_to(&self, total: u64) {
        self.0.fetch_max(total, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<const N: usize> CounterFamily<N> {
    /// A family without a counter yet.
    ///
    /// # Errors
    /// If the name or a label name is not one that Prometheus allows.
    pub fn new(name: &str, help: &str, names: &'static [&'static str; N]) -> Result<Self, prometheus::Error> {
        let labels = names.iter().map(|name| (*name).to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?;
        Ok(Self { desc, names, cells: Arc::default() })
    }

    /// The counter with these label values, in the order of the family's names.
    pub fn with(&self, values: &[&str; N]) -> Counter {
        let key = values.map(str::to_owned);
        if let Some(counter) = self.cells.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return counter.clone();
        }
        self.cells.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }
}

impl<const N: usize> Collector for CounterFamily<N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        if cells.is_empty() {
            return Vec::new();
        }
        let metrics = cells.iter().map(|(values, counter)| self.metric(values, counter)).collect();
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(metrics);
        vec![family]
    }
}

impl<const N: usize> CounterFamily<N> {
    fn metric(&self, values: &[String; N], counter: &Counter) -> Metric {
        let label = |(name, value): (&&str, &String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        };
        let mut value = ProtoCounter::default();
        // A float counts exactly up to 2^53, some 9 PB of traffic.
        #[allow(clippy::cast_precision_loss)]
        value.set_value(counter.get() as f64);
        let mut metric = Metric::default();
        metric.set_label(self.names.iter().zip(values).map(label).collect());
        metric.set_counter(value);
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifted_label_values_stay_apart() {
        let family = CounterFamily::new("test_total", "Test.", &["one", "two"]).unwrap();
        family.with(&["ab", "c"]).add(1);
        family.with(&["a", "bc"]).add(2);
        let registry = prometheus::Registry::new();
        registry.register(Box::new(family)).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("test_total{one=\"ab\",two=\"c\"} 1"), "{text}");
        assert!(text.contains("test_total{one=\"a\",two=\"bc\"} 2"), "{text}");
    }
}
