//! Every metric of the data plane.

mod register;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use portcullis_ledger::{Ledger, SystemClock};
use prometheus::{GaugeVec, Histogram, IntGauge, Registry, TextEncoder};

use crate::access_format::AccessLog;
use crate::access_outputs::AccessOutputs;
use crate::captured::CapturedAt;
use crate::connection::{Direction, TlsFacts};
use crate::export::{AccessSink, SinkTotals};
use crate::family::CounterFamily;
use crate::identity::IdentityMetrics;
use crate::ledger_metrics::LedgerMetrics;
use crate::log::Output;
use crate::names::LocalWorkload;
use crate::open::OpenConnection;
use crate::ports::KnownPorts;
use crate::rate_limit::LogRateLimit;
use crate::recent::{EndedConnections, RecentConnections, RecentFilter};
use crate::state_metrics::{BufferMetrics, ReloadMetrics};
use crate::tcp::TcpMetrics;
use crate::tunnel::TunnelMetrics;
use register::Registering;

/// All metrics of one proxy. Injected where they are counted; there are no statics. A clone is a pointer: every connection
/// holds one.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

/// What [`Metrics`] points to.
pub struct Families {
    registry: Registry,
    pub(crate) access: AccessLog,
    pub(crate) output: Output,
    pub(crate) sink: Option<Arc<dyn AccessSink>>,
    pub(crate) rate_limit: LogRateLimit,
    dropped_lines: CounterFamily<0>,
    exported_lines: CounterFamily<1>,
    pub(crate) tcp: TcpMetrics,
    /// Who was seen.
    pub ledger: Ledger,
    /// When a redirected connection arrived last.
    pub captured: CapturedAt,
    pub(crate) recent: RecentConnections,
    pub(crate) ports: KnownPorts,
    /// The label value `-`, for what is absent. Shared.
    pub(crate) nothing: Arc<str>,
    pub(crate) decisions: CounterFamily<6>,
    pub(crate) candidate_decisions: CounterFamily<7>,
    pub(crate) no_mtls: CounterFamily<1>,
    pub(crate) tls_info: CounterFamily<4>,
    pub(crate) handshakes: [Histogram; 2],
    pub(crate) open: [IntGauge; 2],
    /// Failed accepts, by `error`.
    pub accept_errors: CounterFamily<1>,
    /// Connections to destinations that were reached over mTLS before and would be sent plaintext, by `action`.
    pub downgrades: CounterFamily<1>,
    /// Plaintext connections to an own network that nothing declares.
    pub undeclared_plaintext: CounterFamily<0>,
    /// Certificates that were accepted only because of `tls.compat`, by `check`.
    pub compat_used: CounterFamily<1>,
    /// HBONE tunnels.
    pub tunnels: TunnelMetrics,
    /// Names that were looked up to keep them up to date, by `result`.
    pub dns_lookups: CounterFamily<1>,
    failed_names: IntGauge,
    /// Endpoints that were left out for a while because connections to them failed.
    pub endpoint_ejections: CounterFamily<0>,
    ejected_endpoints: IntGauge,
    pub(crate) truncated_after_close: CounterFamily<1>,
    /// Memory of stalled connections.
    pub buffers: BufferMetrics,
    pub(crate) panics: CounterFamily<1>,
    /// The set of policies.
    pub policies: ReloadMetrics,
    /// The set of certificate, key and bundles.
    pub credentials: ReloadMetrics,
    /// The objects of an API server.
    pub kubernetes: ReloadMetrics,
    /// The set of files of gateway listeners.
    pub gateway: ReloadMetrics,
    /// The source of certificates, if it is one that has to be asked.
    pub identity: IdentityMetrics,
    expiry: [GaugeVec; 2],
    exceptions: GaugeVec,
    break_glass: IntGauge,
    ledger_metrics: LedgerMetrics,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// If two metrics share a name: a mistake of this file.
    pub fn new(version: &str, own: LocalWorkload) -> Result<Self, prometheus::Error> {
        let outputs = AccessOutputs { form: AccessLog::default(), output: Output::direct(), sink: None };
        Self::with_outputs(version, own, outputs, in_memory())
    }

    /// The same, with another form of the access log, and a ledger that may be on disk.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub fn with_outputs(
        version: &str,
        own: LocalWorkload,
        AccessOutputs { form: access, output, sink }: AccessOutputs,
        ledger: Ledger,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = Registering(&registry);
        let tcp = TcpMetrics::new(own)?;
        registry.register(Box::new(tcp.clone()))?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        new.build(version)?;
        Ok(Self(Arc::new(Families {
            access,
            output,
            sink,
            rate_limit: LogRateLimit::default(),
            dropped_lines: new.dropped_lines()?,
            exported_lines: new.exported_lines()?,
            tcp,
            ledger,
            recent: RecentConnections::default(),
            ports: KnownPorts::default(),
            nothing: Arc::from("-"),
            decisions: new.decisions()?,
            candidate_decisions: new.candidate_decisions()?,
            no_mtls: new.no_mtls()?,
            tls_info: new.tls_info()?,
            handshakes: [new.histogram("destination")?, new.histogram("source")?],
            open: [new.sockets("destination")?, new.sockets("source")?],
            accept_errors: new.family("portcullis_accept_errors_total", "Failed accepts.", &["error"])?,
            downgrades: new.downgrades()?,
            undeclared_plaintext: new.undeclared_plaintext()?,
            tunnels: new.tunnels()?,
            compat_used: new.compat_used()?,
            dns_lookups: new.dns_lookups()?,
            failed_names: new.failed_names()?,
            endpoint_ejections: new.endpoint_ejections()?,
            ejected_endpoints: new.ejected_endpoints()?,
            truncated_after_close: new.truncated_after_close()?,
            buffers: new.buffers()?,
            panics: new.panics()?,
            policies: new.reloads("policy")?,
            credentials: new.reloads("credentials")?,
            kubernetes: new.reloads("kubernetes")?,
            gateway: new.reloads("gateway")?,
            identity: new.identity()?,
            captured: CapturedAt::default(),
            exceptions: new.exceptions()?,
            ledger_metrics: LedgerMetrics::new(&registry)?,
            break_glass: new.break_glass()?,
            expiry: new.expiry()?,
            registry,
        })))
    }

    /// How many names failed when they were looked up last, and how many endpoints are left out now.
    pub fn set_endpoints(&self, failed_names: usize, ejected: usize) {
        for (gauge, value) in [(&self.failed_names, failed_names), (&self.ejected_endpoints, ejected)] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// A port that the configuration or a policy names: it may be a label value.
    pub fn allow_port_label(&self, port: u16) {
        self.ports.allow(port);
    }

    /// Seconds until break-glass ends for this workload; 0 without it.
    pub fn set_break_glass(&self, seconds: i64) {
        self.break_glass.set(seconds);
    }

    /// Seconds until the own certificate (`default`) and the root it rests on (`ROOTCA`) end.
    pub fn set_expiry(&self, certificate: f64, root: f64) {
        for family in &self.expiry {
            family.with_label_values(&["default"]).set(certificate);
            family.with_label_values(&["ROOTCA"]).set(root);
        }
    }

    /// Seconds until the policies with an end have passed it, by `namespace/name`. Those that are not named have none any more.
    pub fn set_exceptions<'a>(&self, ends: impl Iterator<Item = (&'a str, f64)>) {
        self.exceptions.reset();
        for (policy, left) in ends {
            self.exceptions.with_label_values(&[policy]).set(left);
        }
    }

    /// Seconds until the first of the gateway listeners' certificates ends (`gateway`).
    pub fn set_gateway_expiry(&self, certificate: f64) {
        for family in &self.expiry {
            family.with_label_values(&["gateway"]).set(certificate);
        }
    }

    /// Tells in the log how many lines about refused connections were held back since the last call. To be called about once
    /// a second, and at the end.
    pub fn log_suppressed(&self) {
        self.rate_limit.log_suppressed();
    }

    /// How many open connections rest on each root, which is named by the SHA-256 of its certificate in hexadecimal.
    #[must_use]
    pub fn connections_by_root(&self) -> std::collections::BTreeMap<Arc<String>, u64> {
        self.tcp.open().by_root()
    }

    /// The connections that are open now, the oldest first.
    #[must_use]
    pub fn open_connections(&self) -> Vec<OpenConnection> {
        self.tcp.open().list()
    }

    /// Adds the bytes that open connections have moved to their edges and observations.
    pub fn flush_bytes(&self) {
        self.tcp.flush();
    }

    /// The connections that ended last.
    #[must_use]
    pub fn ended_connections(&self, filter: &RecentFilter) -> EndedConnections {
        self.recent.list(filter)
    }

    /// All metrics in the Prometheus text format 0.0.4.
    ///
    /// # Errors
    /// If a metric cannot be written in that format.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        self.dropped_lines.with(&[]).raise_to(self.output.dropped());
        self.ledger_metrics.refresh(&self.ledger, &self.ports);
        if let Some(sink) = &self.sink {
            let SinkTotals { sent, refused, dropped } = sink.totals();
            for (result, total) in [("sent", sent), ("refused", refused), ("dropped", dropped)] {
                self.exported_lines.with(&[result]).raise_to(total);
            }
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// A ledger of this process alone.
pub(crate) fn in_memory() -> Ledger {
    Ledger::new(Ledger::DEFAULT_MAX, Arc::new(SystemClock::starting_now()))
}

impl Families {
    /// Counts a completed handshake: what was negotiated, and how long it took.
    pub fn secured(&self, direction: Direction, tls: &TlsFacts, took: Duration) {
        // Sessions are never resumed; the label exists so that dashboards of other proxies work.
        self.tls_info.with(&[tls.version, tls.group, tls.cipher, "false"]).add(1);
        if let Some(histogram) = self.handshakes.get(direction as usize) {
            histogram.observe(took.as_secs_f64());
        }
    }
}

impl Deref for Metrics {
    type Target = Families;

    fn deref(&self) -> &Families {
        &self.0
    }
}
