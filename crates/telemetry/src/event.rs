//! Makes the event of a connection that has ended, for a sink.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::access_line::LineKind;
use crate::export::{AccessEvent, TlsOutcome};
use crate::facts::RuleIndex;
use crate::outcome::{Ending, ResponseFlag};
use crate::record::ConnRecord;

pub(crate) fn event(record: &ConnRecord, ending: &Ending, line: LineKind) -> AccessEvent {
    AccessEvent {
        time: SystemTime::now(),
        warning: line.is_warning(),
        message: line.message(),
        id: record.id(),
        direction: record.direction,
        source: record.src_addr,
        relayed_by: record.balancer(),
        destination: record.dst_addr,
        tunnel: record.tunnel(),
        claims: record.claims().cloned().unwrap_or_default(),
        peer: record.peer.clone(),
        port: record.port,
        mode: record.mode,
        policy: Arc::clone(&record.policy),
        rule: record.rule.map(RuleIndex::get),
        transport: record.transport,
        decision: ending.decision,
        reason: ending.reason,
        hint: ending.hint,
        tls: tls(record, ending),
        server_name: record.sni.name().map(str::to_owned),
        received: record.bytes.received.load(Ordering::Relaxed),
        sent: record.bytes.sent.load(Ordering::Relaxed),
        duration: record.started.elapsed(),
        error: ending.error.clone(),
    }
}

fn tls(record: &ConnRecord, ending: &Ending) -> TlsOutcome {
    match &record.tls {
        Some(tls) => TlsOutcome::Established {
            version: tls.version,
            group: tls.group,
            cipher: tls.cipher,
            root: Arc::clone(&tls.root),
        },
        None if ending.flag == ResponseFlag::TlsFailure => TlsOutcome::Failed,
        None => TlsOutcome::None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::access_format::AccessLog;
    use crate::access_outputs::AccessOutputs;
    use crate::connection::Direction;
    use crate::export::{AccessSink, SinkTotals};
    use crate::log::Output;
    use crate::metrics::{Metrics, in_memory};
    use crate::names::tests::own;
    use crate::outcome::Decision;

    #[derive(Default)]
    struct Kept(Mutex<Vec<AccessEvent>>);

    impl AccessSink for Kept {
        fn accept(&self, event: AccessEvent) {
            self.0.lock().unwrap().push(event);
        }

        fn totals(&self) -> SinkTotals {
            SinkTotals { sent: 3, refused: 2, dropped: 1 }
        }
    }

    fn with_sink(form: AccessLog) -> (Metrics, Arc<Kept>) {
        let kept = Arc::<Kept>::default();
        let outputs = AccessOutputs { form, output: Output::direct(), sink: Some(Arc::clone(&kept) as _) };
        (Metrics::with_outputs("0.0.0", own(), outputs, in_memory()).unwrap(), kept)
    }

    /// Lines are lines of the log, so its level decides about them.
    fn at_info(work: impl FnOnce()) {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::sink).finish();
        tracing::subscriber::with_default(log, work);
    }

    #[test]
    fn a_line_reaches_the_sink_in_every_form_of_the_log() {
        for form in [AccessLog::Ztunnel, AccessLog::Envoy, AccessLog::EnvoyJson, AccessLog::Off] {
            let (metrics, kept) = with_sink(form);
            at_info(|| {
                let mut record = ConnRecord::open(&metrics, Direction::Inbound, "127.0.0.1:9".parse().unwrap());
                record.port = Some(8080);
                let flag = ResponseFlag::TlsFailure;
                let error = Some("x".to_owned());
                record.finish(&Ending { decision: Decision::Deny, reason: "expired", hint: "renew", flag, error });
            });
            let events = kept.0.lock().unwrap();
            let [event] = events.as_slice() else { panic!("{form:?}: {events:?}") };
            assert_eq!((event.message, event.warning, event.port), ("connection refused", true, Some(8080)));
            assert_eq!((event.reason, &event.tls), ("expired", &TlsOutcome::Failed));
        }
    }

    #[test]
    fn what_the_level_leaves_out_is_left_out() {
        let (metrics, kept) = with_sink(AccessLog::Ztunnel);
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(std::io::sink).finish();
        tracing::subscriber::with_default(log, || {
            ConnRecord::open(&metrics, Direction::Inbound, "127.0.0.1:9".parse().unwrap()).finish(&Ending::CLEAN);
        });
        assert!(kept.0.lock().unwrap().is_empty());
    }

    #[test]
    fn totals_are_metrics_only_where_there_is_a_sink() {
        let page = with_sink(AccessLog::Off).0.encode().unwrap();
        for line in ["result=\"sent\"} 3", "result=\"refused\"} 2", "result=\"dropped\"} 1"] {
            assert!(page.contains(&format!("portcullis_otlp_log_records_total{{{line}")), "{page}");
        }
        assert!(!Metrics::new("0.0.0", own()).unwrap().encode().unwrap().contains("otlp"));
    }
}
