//! The names, help texts and labels of the metrics, one function each, and their registration.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntGauge, Opts, Registry};

use crate::family::CounterFamily;
use crate::identity::IdentityMetrics;
use crate::state_metrics::{BufferMetrics, ReloadMetrics};
use crate::tunnel::TunnelMetrics;

/// Makes metrics and registers them.
pub(super) struct Registering<'r>(pub(super) &'r Registry);

impl Registering<'_> {
    pub(super) fn family<const N: usize>(
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

    pub(super) fn histogram(&self, reporter: &str) -> Result<Histogram, prometheus::Error> {
        let help = "Time from the first byte of a handshake to the verified peer.";
        let opts = HistogramOpts::new("portcullis_handshake_seconds", help)
            .const_label("reporter", reporter)
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let histogram = Histogram::with_opts(opts)?;
        self.0.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    pub(super) fn reloads(&self, set: &str) -> Result<ReloadMetrics, prometheus::Error> {
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

    /// The version, as Istio's proxies tell it.
    pub(super) fn build(&self, version: &str) -> Result<(), prometheus::Error> {
        let build = Opts::new("istio_build", "Version of the proxy; always 1.")
            .const_label("component", "portcullis")
            .const_label("tag", version);
        self.gauge(build)?.set(1);
        Ok(())
    }

    pub(super) fn panics(&self) -> Result<CounterFamily<1>, prometheus::Error> {
        let panics = self.family(
            "portcullis_connection_panics_total",
            "Connections that a mistake in this proxy ended; the log line that says panic has the place.",
            &["reporter"],
        )?;
        for reporter in ["destination", "source"] {
            // There from the start, so that an alert sees the first one as an increase.
            panics.with(&[reporter]);
        }
        Ok(panics)
    }

    pub(super) fn sockets(&self, reporter: &str) -> Result<IntGauge, prometheus::Error> {
        self.gauge(Opts::new("istio_tcp_sockets_open", "Connections open now.").const_label("reporter", reporter))
    }

    fn tunnels_open(&self, reporter: &str) -> Result<IntGauge, prometheus::Error> {
        self.gauge(
            Opts::new("portcullis_hbone_tunnels_open", "HBONE tunnels open now.").const_label("reporter", reporter),
        )
    }

    pub(super) fn dropped_lines(&self) -> Result<CounterFamily<0>, prometheus::Error> {
        self.family(
            "portcullis_log_lines_dropped_total",
            "Log lines that were dropped because standard output was not read in time.",
            &[],
        )
    }

    pub(super) fn exported_lines(&self) -> Result<CounterFamily<1>, prometheus::Error> {
        self.family(
            "portcullis_otlp_log_records_total",
            "Access log lines for OpenTelemetry, by what became of them.",
            &["result"],
        )
    }

    pub(super) fn decisions(&self) -> Result<CounterFamily<6>, prometheus::Error> {
        self.family(
            "portcullis_policy_decisions_total",
            "Connections by what was decided, why, and by which policy; would_* and audit are counted beside that.",
            &["port", "mode", "decision", "reason", "policy", "transport"],
        )
    }

    pub(super) fn candidate_decisions(&self) -> Result<CounterFamily<7>, prometheus::Error> {
        self.family(
            "portcullis_candidate_decisions_total",
            "Inbound connections that a candidate set of policies would decide otherwise than the one in force.",
            &["candidate", "port", "mode", "decision", "reason", "policy", "transport"],
        )
    }

    pub(super) fn no_mtls(&self) -> Result<CounterFamily<1>, prometheus::Error> {
        self.family(
            "portcullis_no_mtls_reason_total",
            "Inbound connections without mutual TLS, let through or refused, by why.",
            &["reason"],
        )
    }

    pub(super) fn tls_info(&self) -> Result<CounterFamily<4>, prometheus::Error> {
        self.family(
            "portcullis_tls_info_total",
            "Handshakes by what they agreed on.",
            &["version", "group", "cipher", "resumed"],
        )
    }

    pub(super) fn downgrades(&self) -> Result<CounterFamily<1>, prometheus::Error> {
        self.family(
                "portcullis_outbound_downgrades_total",
                "Connections to destinations that were reached over mTLS before and would be sent plaintext, by what was done.",
                &["action"],
            )
    }

    pub(super) fn undeclared_plaintext(&self) -> Result<CounterFamily<0>, prometheus::Error> {
        self.family(
            "portcullis_outbound_undeclared_plaintext_total",
            "Plaintext connections to a network of this workload's own that no ServiceEntry and no route declares.",
            &[],
        )
    }

    pub(super) fn tunnels(&self) -> Result<TunnelMetrics, prometheus::Error> {
        Ok(TunnelMetrics {
            open: [self.tunnels_open("destination")?, self.tunnels_open("source")?],
            closed: self.family(
                "portcullis_hbone_tunnels_closed_total",
                "HBONE tunnels that ended, by why.",
                &["reporter", "reason"],
            )?,
        })
    }

    pub(super) fn compat_used(&self) -> Result<CounterFamily<1>, prometheus::Error> {
        self.family(
            "portcullis_compat_used_total",
            "Certificates accepted only because tls.compat relaxes a check.",
            &["check"],
        )
    }

    pub(super) fn dns_lookups(&self) -> Result<CounterFamily<1>, prometheus::Error> {
        self.family(
            "portcullis_dns_lookups_total",
            "Names looked up for routes and services, by whether there was an answer.",
            &["result"],
        )
    }

    pub(super) fn failed_names(&self) -> Result<IntGauge, prometheus::Error> {
        self.gauge(Opts::new("portcullis_dns_failed_names", "Names of routes and services whose last look-up failed."))
    }

    pub(super) fn endpoint_ejections(&self) -> Result<CounterFamily<0>, prometheus::Error> {
        self.family(
            "portcullis_outbound_ejections_total",
            "Endpoints that were left out for a while because connections to them failed.",
            &[],
        )
    }

    pub(super) fn ejected_endpoints(&self) -> Result<IntGauge, prometheus::Error> {
        self.gauge(Opts::new(
            "portcullis_outbound_ejected_endpoints",
            "Endpoints that are left out now because connections to them failed.",
        ))
    }

    pub(super) fn truncated_after_close(&self) -> Result<CounterFamily<1>, prometheus::Error> {
        self.family(
                "portcullis_truncated_after_close_total",
                "Connections that ended cleanly although a TLS peer left out close_notify, after our own direction had ended.",
                &["reporter"],
            )
    }

    pub(super) fn buffers(&self) -> Result<BufferMetrics, prometheus::Error> {
        Ok(BufferMetrics {
            held: self.gauge(Opts::new(
                "portcullis_buffered_bytes",
                "Memory held by connections whose receiver does not read; limits.buffers bounds it.",
            ))?,
            limited: self.gauge(Opts::new(
                "portcullis_buffer_limited_connections",
                "Connections that copy in small pieces because limits.buffers is spent, by all or by their peer.",
            ))?,
        })
    }

    pub(super) fn identity(&self) -> Result<IdentityMetrics, prometheus::Error> {
        Ok(IdentityMetrics {
            renewals: self.family(
                "portcullis_identity_renewals_total",
                "Certificates asked for, by whether a new one was put in force, and why not.",
                &["result", "reason"],
            )?,
            consecutive: self.gauge(Opts::new(
                "portcullis_identity_consecutive_failures",
                "Attempts in a row that brought no new certificate.",
            ))?,
            polls: self.family(
                "portcullis_identity_bundle_polls_total",
                "Trust bundles asked for, by whether there was an answer that is used, and why not.",
                &["result", "reason"],
            )?,
        })
    }

    pub(super) fn exceptions(&self) -> Result<GaugeVec, prometheus::Error> {
        self.gauges(
            "portcullis_exception_expiry_seconds",
            "Seconds until a policy with an end, which applies to this workload, has passed it; negative once it has.",
            "policy",
        )
    }

    pub(super) fn break_glass(&self) -> Result<IntGauge, prometheus::Error> {
        self.gauge(Opts::new(
            "portcullis_break_glass_seconds",
            "Seconds until break-glass ends, while it lets plaintext into this workload; 0 without it.",
        ))
    }

    pub(super) fn expiry(&self) -> Result<[GaugeVec; 2], prometheus::Error> {
        Ok([
            self.gauges(
                "portcullis_cert_expiry_seconds",
                "Seconds until the certificate ends; negative once it has.",
                "resource_name",
            )?,
            self.gauges(
                "istio_agent_cert_expiry_seconds",
                "The same, under the name that Istio's alerts use.",
                "resource_name",
            )?,
        ])
    }
}
