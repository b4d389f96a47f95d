//! The registry and every metric of the data plane.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use portcullis_ledger::{Ledger, SystemClock};
use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntGauge, Opts, Registry, TextEncoder};

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
        let build = Opts::new("istio_build", "Version of the proxy; always 1.")
            .const_label("component", "portcullis")
            .const_label("tag", version);
        new.gauge(build)?.set(1);
        let panics = new.family(
            "portcullis_connection_panics_total",
            "Connections that a mistake in this proxy ended; the log line that says panic has the place.",
            &["reporter"],
        )?;
        for reporter in ["destination", "source"] {
            // There from the start, so that an alert sees the first one as an increase.
            panics.with(&[reporter]);
        }
        let sockets = |reporter: &str| {
            new.gauge(Opts::new("istio_tcp_sockets_open", "Connections open now.").const_label("reporter", reporter))
        };
        let tunnels = |reporter: &str| {
            new.gauge(
                Opts::new("portcullis_hbone_tunnels_open", "HBONE tunnels open now.").const_label("reporter", reporter),
            )
        };
        Ok(Self(Arc::new(Families {
            access,
            output,
            sink,
            rate_limit: LogRateLimit::default(),
            dropped_lines: new.family(
                "portcullis_log_lines_dropped_total",
                "Log lines that were dropped because standard output was not read in time.",
                &[],
            )?,
            exported_lines: new.family(
                "portcullis_otlp_log_records_total",
                "Access log lines for OpenTelemetry, by what became of them.",
                &["result"],
            )?,
            tcp,
            ledger,
            recent: RecentConnections::default(),
            ports: KnownPorts::default(),
            nothing: Arc::from("-"),
            decisions: new.family(
                "portcullis_policy_decisions_total",
                "Connections by what was decided, why, and by which policy; would_* and audit are counted beside that.",
                &["port", "mode", "decision", "reason", "policy", "transport"],
            )?,
            candidate_decisions: new.family(
                "portcullis_candidate_decisions_total",
                "Inbound connections that a candidate set of policies would decide otherwise than the one in force.",
                &["candidate", "port", "mode", "decision", "reason", "policy", "transport"],
            )?,
            no_mtls: new.family(
                "portcullis_no_mtls_reason_total",
                "Inbound connections without mutual TLS, let through or refused, by why.",
                &["reason"],
            )?,
            tls_info: new.family(
                "portcullis_tls_info_total",
                "Handshakes by what they agreed on.",
                &["version", "group", "cipher", "resumed"],
            )?,
            handshakes: [new.histogram("destination")?, new.histogram("source")?],
            open: [sockets("destination")?, sockets("source")?],
            accept_errors: new.family("portcullis_accept_errors_total", "Failed accepts.", &["error"])?,
            downgrades: new.family(
                "portcullis_outbound_downgrades_total",
                "Connections to destinations that were reached over mTLS before and would be sent plaintext, by what was done.",
                &["action"],
            )?,
            tunnels: TunnelMetrics {
                open: [tunnels("destination")?, tunnels("source")?],
                closed: new.family(
                    "portcullis_hbone_tunnels_closed_total",
                    "HBONE tunnels that ended, by why.",
                    &["reporter", "reason"],
                )?,
            },
            compat_used: new.family(
                "portcullis_compat_used_total",
                "Certificates accepted only because tls.compat relaxes a check.",
                &["check"],
            )?,
            dns_lookups: new.family(
                "portcullis_dns_lookups_total",
                "Names looked up for routes and services, by whether there was an answer.",
                &["result"],
            )?,
            failed_names: new.gauge(Opts::new(
                "portcullis_dns_failed_names",
                "Names of routes and services whose last look-up failed.",
            ))?,
            endpoint_ejections: new.family(
                "portcullis_outbound_ejections_total",
                "Endpoints that were left out for a while because connections to them failed.",
                &[],
            )?,
            ejected_endpoints: new.gauge(Opts::new(
                "portcullis_outbound_ejected_endpoints",
                "Endpoints that are left out now because connections to them failed.",
            ))?,
            truncated_after_close: new.family(
                "portcullis_truncated_after_close_total",
                "Connections that ended cleanly although a TLS peer left out close_notify, after our own direction had ended.",
                &["reporter"],
            )?,
            buffers: BufferMetrics {
                held: new.gauge(Opts::new(
                    "portcullis_buffered_bytes",
                    "Memory held by connections whose receiver does not read; limits.buffers bounds it.",
                ))?,
                limited: new.gauge(Opts::new(
                    "portcullis_buffer_limited_connections",
                    "Connections that copy in small pieces because limits.buffers is spent, by all or by their peer.",
                ))?,
            },
            panics,
            policies: new.reloads("policy")?,
            credentials: new.reloads("credentials")?,
            gateway: new.reloads("gateway")?,
            identity: IdentityMetrics {
                renewals: new.family(
                    "portcullis_identity_renewals_total",
                    "Certificates asked for, by whether a new one was put in force, and why not.",
                    &["result", "reason"],
                )?,
                consecutive: new.gauge(Opts::new(
                    "portcullis_identity_consecutive_failures",
                    "Attempts in a row that brought no new certificate.",
                ))?,
                polls: new.family(
                    "portcullis_identity_bundle_polls_total",
                    "Trust bundles asked for, by whether there was an answer that is used, and why not.",
                    &["result", "reason"],
                )?,
            },
            captured: CapturedAt::default(),
            exceptions: new.gauges(
                "portcullis_exception_expiry_seconds",
                "Seconds until a policy with an end, which applies to this workload, has passed it; negative once it has.",
                "policy",
            )?,
            ledger_metrics: LedgerMetrics::new(&registry)?,
            break_glass: new.gauge(Opts::new(
                "portcullis_break_glass_seconds",
                "Seconds until break-glass ends, while it lets plaintext into this workload; 0 without it.",
            ))?,
            expiry: [
                new.gauges(
                    "portcullis_cert_expiry_seconds",
                    "Seconds until the certificate ends; negative once it has.",
                    "resource_name",
                )?,
                new.gauges(
                    "istio_agent_cert_expiry_seconds",
                    "The same, under the name that Istio's alerts use.",
                    "resource_name",
                )?,
            ],
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

/// Makes metrics and registers them.
struct Registering<'r>(&'r Registry);

impl Registering<'_> {
    fn family<const N: usize>(
        &self,
        name: &str,
        help: &str,
        names: &'static [&'static str; N],
    ) -> Result<CounterFamily<N>, prometheus::Error> {
        let family = CounterFamily::new(name, help, names)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauge(&self, opts: Opts) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::with_opts(opts)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    /// With one label only, so that the crate's hashing of label values cannot mix two of them up.
    fn gauges(&self, name: &str, help: &str, label: &str) -> Result<GaugeVec, prometheus::Error> {
        let gauges = GaugeVec::new(Opts::new(name, help), &[label])?;
        self.0.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    fn histogram(&self, reporter: &str) -> Result<Histogram, prometheus::Error> {
        let help = "Time from the first byte of a handshake to the verified peer.";
        let opts = HistogramOpts::new("portcullis_handshake_seconds", help)
            .const_label("reporter", reporter)
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let histogram = Histogram::with_opts(opts)?;
        self.0.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    fn reloads(&self, set: &str) -> Result<ReloadMetrics, prometheus::Error> {
        let name = |suffix: &str| format!("portcullis_{set}_{suffix}");
        let last = Gauge::new(name("last_reload_timestamp"), "When the set in force was put there, since 1970.")?;
        self.0.register(Box::new(last.clone()))?;
        Ok(ReloadMetrics {
            results: self.family(&name("reload_total"), "Sets put in force, and problems met.", &["result"])?,
            generation: self.gauge(Opts::new(name("generation"), "How often a set was put in force."))?,
            last,
            stale: self
                .gauge(Opts::new(name("stale"), "1 while the files have a problem and an older set is in force."))?,
        })
    }
}
