//! The record of one connection, from accept to its access-log line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::Metrics;

/// Which side of the mesh edge this proxy is on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// A peer connected to our app.
    Inbound,
    /// Our app connected to a peer.
    Outbound,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    /// Istio's `reporter` label.
    fn reporter(self) -> &'static str {
        match self {
            Self::Inbound => "destination",
            Self::Outbound => "source",
        }
    }
}

/// Whether the connection was let through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It reached the other side.
    Allow,
    /// No byte of it did.
    Deny,
}

impl Decision {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Bytes moved so far, shared with the copy loop. Counted as Istio does for both reporters: `received` from client to
/// server, `sent` from server to client.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    /// Client to server.
    pub received: Arc<AtomicU64>,
    /// Server to client.
    pub sent: Arc<AtomicU64>,
}

/// What the handshake agreed on.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// Key-exchange group.
    pub group: &'static str,
    /// Cipher suite.
    pub cipher: &'static str,
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Allowed or denied.
    pub decision: Decision,
    /// Bounded label; `-` when there is nothing to say.
    pub reason: &'static str,
    /// What an operator can do about it; empty when nothing.
    pub hint: &'static str,
    /// Details of a failure, for the log only.
    pub error: Option<String>,
}

/// One connection, open until it is finished or dropped.
pub struct ConnRecord {
    /// Which side of the edge.
    pub direction: Direction,
    /// Address of who connected.
    pub src_addr: SocketAddr,
    /// Verified SPIFFE ID of the client: the peer (inbound) or ourselves (outbound).
    pub src_identity: Option<String>,
    /// Address that was dialled by the client, as far as it is known.
    pub dst_addr: Option<SocketAddr>,
    /// Verified SPIFFE ID of the server: ourselves (inbound) or the peer (outbound).
    pub dst_identity: Option<String>,
    /// The workload's port, or `-`. The log names every one, a metric only what is known: see `port_is_known`.
    pub port: String,
    /// The port is configured or named by a policy. Any other becomes a label only once something accepted there, and
    /// counts as `other` until then: whoever scans captured ports must not make a label of each.
    pub port_is_known: bool,
    /// Mode of the port, or how the route is reached.
    pub mode: &'static str,
    /// The policy that decided, `namespace/name`, or `-`.
    pub policy: String,
    /// What the client's first bytes were: `mtls`, `tls`, `plaintext` or `-`.
    pub transport: &'static str,
    /// What the handshake agreed on.
    pub tls: Option<TlsFacts>,
    /// SNI, for the log only.
    pub sni: Option<String>,
    /// Bytes moved.
    pub bytes: Bytes,
    id: u64,
    started: Instant,
    metrics: Metrics,
    admitted: bool,
    ended: bool,
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
            src_identity: None,
            dst_addr: None,
            dst_identity: None,
            port: "-".to_owned(),
            port_is_known: false,
            mode: "-",
            policy: "-".to_owned(),
            transport: "-",
            tls: None,
            sni: None,
            bytes: Bytes::default(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            started: Instant::now(),
            metrics: metrics.clone(),
            admitted: false,
            ended: false,
        }
    }

    /// Number of this connection in logs.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The connection may go on to the other side; it counts as opened.
    pub fn admit(&mut self) {
        self.admitted = true;
        self.metrics.opened.with(&self.labels()).add(1);
    }

    /// A TLS peer left out close_notify when that did no harm any more: counted, and no reason to give.
    pub fn count_truncated_after_close(&self) {
        self.metrics.truncated_after_close.with(&[self.direction.reporter()]).add(1);
    }

    /// Closes the record: counters and one access-log line.
    pub fn finish(mut self, ending: &Ending) {
        self.end(ending);
    }

    fn labels(&self) -> [&'static str; 2] {
        let security = match (self.transport, self.direction) {
            ("mtls", _) => "mutual_tls",
            (_, Direction::Inbound) => "none",
            (_, Direction::Outbound) => "unknown",
        };
        [self.direction.reporter(), security]
    }

    fn end(&mut self, ending: &Ending) {
        if self.ended {
            return;
        }
        self.ended = true;
        let (received, sent) = (self.bytes.received.load(Ordering::Relaxed), self.bytes.sent.load(Ordering::Relaxed));
        if let Some(gauge) = self.metrics.open.get(self.direction as usize) {
            gauge.dec();
        }
        if self.admitted {
            let labels = self.labels();
            self.metrics.closed.with(&labels).add(1);
            self.metrics.received.with(&labels).add(received);
            self.metrics.sent.with(&labels).add(sent);
        }
        let decision = ending.decision.as_str();
        let known = self.port_is_known || self.admitted || self.port == "-";
        let port = if known { self.port.as_str() } else { "other" };
        let labels = [port, self.mode, decision, ending.reason, &self.policy, self.transport];
        self.metrics.decisions.with(&labels).add(1);
        self.log(ending, received, sent);
    }

    fn log(&self, ending: &Ending, received: u64, sent: u64) {
        macro_rules! line {
            ($level:expr, $message:literal) => {
                tracing::event!(
                    target: "access", $level,
                    conn_id = self.id,
                    direction = self.direction.as_str(),
                    "src.addr" = %self.src_addr,
                    "src.identity" = self.src_identity.as_deref().map(display),
                    "dst.addr" = self.dst_addr.map(display),
                    "dst.identity" = self.dst_identity.as_deref().map(display),
                    port = %self.port,
                    mode = self.mode,
                    policy = %self.policy,
                    transport = self.transport,
                    decision = ending.decision.as_str(),
                    reason = ending.reason,
                    hint = Some(ending.hint).filter(|hint| !hint.is_empty()),
                    "tls.version" = self.tls.as_ref().map(|tls| tls.version),
                    "tls.group" = self.tls.as_ref().map(|tls| tls.group),
                    "tls.cipher" = self.tls.as_ref().map(|tls| tls.cipher),
                    sni = self.sni.as_deref(),
                    bytes_recv = received,
                    bytes_sent = sent,
                    duration = %format_args!("{}ms", self.started.elapsed().as_millis()),
                    error = ending.error.as_deref(),
                    $message
                )
            };
        }
        match ending.decision {
            Decision::Allow => line!(tracing::Level::INFO, "connection complete"),
            Decision::Deny => line!(tracing::Level::WARN, "connection refused"),
        }
    }
}

impl Drop for ConnRecord {
    fn drop(&mut self) {
        let decision = if self.admitted { Decision::Allow } else { Decision::Deny };
        let hint = "the proxy ended, or a task was cancelled, while the connection lived";
        self.end(&Ending { decision, reason: "shutdown", hint, error: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_becomes_a_label_only_if_it_is_known_or_something_accepted_there() {
        let metrics = Metrics::new("0.0.0").unwrap();
        let record = |port: &str, known: bool, admit: bool| {
            let mut record = ConnRecord::open(&metrics, Direction::Inbound, "127.0.0.1:9".parse().unwrap());
            record.port = port.to_owned();
            record.port_is_known = known;
            if admit {
                record.admit();
            }
        };
        record("-", false, false);
        record("1001", true, false);
        record("1002", false, true);
        record("1003", false, false);
        record("1004", false, false);
        let text = metrics.encode().unwrap();
        for (port, count) in [("-", 1), ("1001", 1), ("1002", 1), ("1003", 0), ("1004", 0), ("other", 1)] {
            let is_labelled = |line: &&str| ["{", ","].iter().any(|s| line.contains(&format!("{s}port=\"{port}\"")));
            assert_eq!(text.lines().filter(is_labelled).count(), count, "{port} in {text}");
        }
    }

    #[test]
    fn a_record_counts_once_whether_finished_or_dropped() {
        let metrics = Metrics::new("0.0.0").unwrap();
        let client: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let record = ConnRecord::open(&metrics, Direction::Inbound, client);
        record.finish(&Ending { decision: Decision::Deny, reason: "x", hint: "", error: None });
        let mut dropped = ConnRecord::open(&metrics, Direction::Inbound, client);
        dropped.transport = "mtls";
        dropped.admit();
        dropped.count_truncated_after_close();
        drop(dropped);
        let text = metrics.encode().unwrap();
        let deny = "decision=\"deny\",mode=\"-\",policy=\"-\",port=\"-\",reason=\"x\",transport=\"-\"} 1";
        let any_order = text.lines().any(|line| line.contains("reason=\"x\"") && line.ends_with(" 1"));
        assert!(text.contains(deny) || any_order, "{text}");
        assert!(text.contains("reason=\"shutdown\""), "{text}");
        assert!(text.contains("istio_tcp_sockets_open{reporter=\"destination\"} 0"), "{text}");
        assert!(text.contains("connection_security_policy=\"mutual_tls\""), "{text}");
        assert!(text.contains("portcullis_truncated_after_close_total{reporter=\"destination\"} 1"), "{text}");
    }
}
