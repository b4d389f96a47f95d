//! The access log: one line for each connection, in the format of ztunnel or Envoy.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::Level;

use crate::access_format::AccessLog;
use crate::access_line::LineKind;
use crate::claims::hexadecimal;
use crate::connection::Direction;
use crate::envoy;
use crate::event::event;
use crate::facts::RuleIndex;
use crate::outcome::{Decision, Ending, ResponseFlag};
use crate::printable::printable;
use crate::record::ConnRecord;

/// Writes the line of a connection that has ended.
pub(crate) fn write(record: &ConnRecord, ending: &Ending, admitted: bool) {
    let (form, sink) = (record.metrics.access, record.metrics.sink.as_deref());
    let wanted = form != AccessLog::Off || sink.is_some();
    if !wanted || !passes_filter(ending) || is_rate_limited(record, ending, admitted) {
        return;
    }
    if let Some(sink) = sink {
        sink.accept(event(record, ending, LineKind::of(ending, admitted)));
    }
    match form {
        AccessLog::Off => {}
        AccessLog::Ztunnel => ztunnel(record, ending, admitted),
        AccessLog::Envoy => print(record, envoy::Line::new(record, ending, admitted).text()),
        AccessLog::EnvoyJson => print(record, envoy::Line::new(record, ending, admitted).json()),
    }
}

/// Whether the line is over the rate limit for refusals. Admitted connections are always logged.
fn is_rate_limited(record: &ConnRecord, ending: &Ending, admitted: bool) -> bool {
    !admitted && ending.decision == Decision::Deny && !record.metrics.rate_limit.admits(ending.reason, Instant::now())
}

/// Whether the line would be written in ztunnel's form, with the level that it has there.
fn passes_filter(ending: &Ending) -> bool {
    if ending.decision == Decision::Allow || ending.flag == ResponseFlag::Abandoned {
        tracing::enabled!(target: "access", Level::INFO)
    } else {
        tracing::enabled!(target: "access", Level::WARN)
    }
}

fn print(record: &ConnRecord, mut line: String) {
    line.push('\n');
    record.metrics.output.print(&line);
}

fn ztunnel(record: &ConnRecord, ending: &Ending, admitted: bool) {
    let (received, sent) = (record.bytes.received.load(Ordering::Relaxed), record.bytes.sent.load(Ordering::Relaxed));
    let own = record.peer.as_ref().map(|_mutual| &record.metrics.tcp.own().id);
    let (source, destination) = match record.direction {
        Direction::Inbound => (record.peer.as_ref(), own),
        Direction::Outbound => (own, record.peer.as_ref()),
    };
    let tls = record.tls.as_ref();
    let claims = record.claims();
    let trace = claims.and_then(|claims| claims.trace);
    let line = LineKind::of(ending, admitted);
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: "access", $level,
                conn_id = record.id(),
                direction = record.direction.as_str(),
                "src.addr" = %record.src_addr,
                "src.relayed_by" = record.balancer().map(display),
                "src.identity" = source.map(display),
                "src.claimed_workload" = claims.and_then(|claims| claims.workload.as_deref()),
                "dst.addr" = record.tunnel().or(record.dst_addr).map(display),
                "dst.hbone_addr" = record.tunnel().and(record.dst_addr).map(display),
                "dst.identity" = destination.map(display),
                port = record.port,
                mode = record.mode,
                policy = %record.policy,
                rule = record.rule.map(RuleIndex::get),
                transport = record.transport,
                decision = ending.decision.as_str(),
                reason = ending.reason,
                hint = Some(ending.hint).filter(|hint| !hint.is_empty()),
                "tls.version" = tls.map(|tls| tls.version),
                "tls.group" = tls.map(|tls| display(tls.group)),
                "tls.cipher" = tls.map(|tls| display(tls.cipher)),
                sni = record.sni.name().map(printable).as_deref(),
                trace_id = trace.map(|ids| hexadecimal(&ids.trace)).as_deref(),
                bytes_recv = received,
                bytes_sent = sent,
                duration = %format_args!("{}ms", record.started.elapsed().as_millis()),
                error = ending.error.as_deref().map(printable).as_deref(),
                "{}", line.message()
            )
        };
    }
    if line.is_warning() { line!(Level::WARN) } else { line!(Level::INFO) }
}
