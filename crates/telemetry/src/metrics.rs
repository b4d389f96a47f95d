//! The registry and every metric of the data plane.

use std::ops::Deref;
use std::sync::Arc;

use prometheus::{Gauge, IntGauge, Opts, Registry, TextEncoder};

use crate::CounterFamily;

/// All metrics of one proxy. Injected where they are counted; there are no statics. A clone is a pointer: every connection
/// holds one.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

/// What [`Metrics`] points to.
pub struct Families {
    registry: Registry,
    pub(crate) decisions: CounterFamily,
    pub(crate) opened: CounterFamily,
    pub(crate) closed: CounterFamily,
    pub(crate) received: CounterFamily,
    pub(crate) sent: CounterFamily,
    pub(crate) truncated_after_close: CounterFamily,
    pub(crate) open: [IntGauge; 2],
    /// Reloads of the two sets, by `set` (`policies`, `credentials`) and `result` (`ok`, `error`).
    pub reloads: CounterFamily,
    /// Failed accepts, by `error`.
    pub accept_errors: CounterFamily,
    /// Seconds since 1970 at which the own certificate ends; 0 without one.
    pub certificate_not_after: Gauge,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// If two metrics share a name: a mistake of this file.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let family = |name: &str, help: &str, names: &'static [&'static str]| {
            let family = CounterFamily::new(name, help, names)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let gauge = |opts: Opts| {
            let gauge = IntGauge::with_opts(opts)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let sockets = |reporter: &str| {
            gauge(Opts::new("istio_tcp_sockets_open", "Connections open now.").const_label("reporter", reporter))
        };
        let not_after = Gauge::new(
            "portcullis_certificate_not_after_seconds",
            "End of the own certificate, in seconds since 1970; 0 without one.",
        )?;
        registry.register(Box::new(not_after.clone()))?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let build = Opts::new("istio_build", "Version of the proxy.")
            .const_label("component", "portcullis")
            .const_label("tag", version);
        gauge(build)?.set(1);
        let per_connection: &[&str] = &["reporter", "connection_security_policy"];
        Ok(Self(Arc::new(Families {
            decisions: family(
                "portcullis_policy_decisions_total",
                "Connections by what was decided, why, and by which policy.",
                &["port", "mode", "decision", "reason", "policy", "transport"],
            )?,
            opened: family("istio_tcp_connections_opened_total", "Connections opened.", per_connection)?,
            closed: family("istio_tcp_connections_closed_total", "Connections closed.", per_connection)?,
            received: family("istio_tcp_received_bytes_total", "Bytes from client to server.", per_connection)?,
            sent: family("istio_tcp_sent_bytes_total", "Bytes from server to client.", per_connection)?,
            truncated_after_close: family(
                "portcullis_truncated_after_close_total",
                "Connections that ended cleanly although a TLS peer left out close_notify, after our own direction had ended.",
                &["reporter"],
            )?,
            open: [sockets("destination")?, sockets("source")?],
            reloads: family("portcullis_reloads_total", "Reloads of policies and credentials.", &["set", "result"])?,
            accept_errors: family("portcullis_accept_errors_total", "Failed accepts.", &["error"])?,
            certificate_not_after: not_after,
            registry,
        })))
    }

    /// All metrics in the Prometheus text format 0.0.4.
    ///
    /// # Errors
    /// If a metric cannot be written in that format.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Deref for Metrics {
    type Target = Families;

    fn deref(&self) -> &Families {
        &self.0
    }
}
