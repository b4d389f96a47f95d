//! Metrics under the names that Istio's CA has, so that its dashboards and alerts work.

use prometheus::{Gauge, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

/// All of them.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) csr: IntCounter,
    pub(crate) issued: IntCounter,
    pub(crate) authentication_failure: IntCounter,
    pub(crate) csr_parsing: IntCounter,
    pub(crate) id_extraction: IntCounter,
    pub(crate) sign_error: IntCounterVec,
    root_timestamp: Gauge,
    chain_timestamp: Gauge,
    root_seconds: Gauge,
    chain_seconds: Gauge,
    state_unwritable: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("citadel_server_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::new(format!("citadel_server_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let sign_error = IntCounterVec::new(
            Opts::new("citadel_server_csr_sign_err_count", "The number of errors occurred when signing the CSR."),
            &["error"],
        )?;
        registry.register(Box::new(sign_error.clone()))?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            csr: counter("csr_count", "The number of CSRs received by Citadel server.")?,
            issued: counter(
                "success_cert_issuance_count",
                "The number of certificates issuances that have succeeded.",
            )?,
            authentication_failure: counter("authentication_failure_count", "The number of authentication failures.")?,
            csr_parsing: counter("csr_parsing_err_count", "The number of errors occurred when parsing the CSR.")?,
            id_extraction: counter(
                "id_extraction_err_count",
                "The number of errors occurred when extracting the ID from CSR.",
            )?,
            root_timestamp: gauge(
                "root_cert_expiry_timestamp",
                "The unix timestamp, in seconds, when the root cert will expire.",
            )?,
            chain_timestamp: gauge(
                "cert_chain_expiry_timestamp",
                "The unix timestamp, in seconds, when the cert chain will expire.",
            )?,
            root_seconds: gauge(
                "root_cert_expiry_seconds",
                "The time remaining, in seconds, before the root cert will expire.",
            )?,
            chain_seconds: gauge(
                "cert_chain_expiry_seconds",
                "The time remaining, in seconds, before the cert chain will expire.",
            )?,
            state_unwritable: {
                let name = "portcullis_ca_state_unwritable";
                let gauge = Gauge::new(name, "1 while the state cannot be written and nothing is issued, else 0.")?;
                registry.register(Box::new(gauge.clone()))?;
                gauge
            },
            sign_error,
            registry,
        })
    }

    /// The page, with ends of root and chain as they are now, in Unix time.
    pub(crate) fn page(&self, root: i64, chain: i64, now: i64, state_unwritable: bool) -> String {
        self.state_unwritable.set(if state_unwritable { 1.0 } else { 0.0 });
        #[allow(clippy::cast_precision_loss, reason = "times of this century are far below 2^53")]
        let set = |gauge: &Gauge, value: i64| gauge.set(value as f64);
        set(&self.root_timestamp, root);
        set(&self.chain_timestamp, chain);
        set(&self.root_seconds, root.saturating_sub(now));
        set(&self.chain_seconds, chain.saturating_sub(now));
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        text.unwrap_or_else(|error| format!("# metrics cannot be written: {error}\n"))
    }
}
