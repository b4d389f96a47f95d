//! Batches, kept connections, and the end of the process.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use portcullis_config::OtlpProtocol;
use portcullis_telemetry::{AccessSink as _, SinkTotals};

use crate::collector::{Collector, Reply};
use crate::{await_totals, line, sent, settings, start, wire};

#[test]
fn lines_of_a_second_share_a_request_and_none_is_too_large() {
    let collector = Collector::start(|_| Reply::status(200));
    let (_exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Protobuf));
    (0..600).for_each(|id| sink.accept(line(id)));
    let batches = [collector.next(), collector.next()].map(|request| wire::protobuf(&request.body).records);
    assert!(batches.iter().all(|records| records.len() <= 512), "{} and {}", batches[0].len(), batches[1].len());
    let ids: Vec<u64> = batches.iter().flatten().map(wire::Record::id).collect();
    assert_eq!(ids, (0..600).collect::<Vec<_>>(), "all, once, in order");
    await_totals(&sink, sent(600));
}

#[test]
fn the_connection_is_kept_and_replaced_when_it_has_ended() {
    let collector = Collector::start(|n| if n == 1 { Reply::LastAnswer } else { Reply::status(200) });
    let (_exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Protobuf));
    let mut connections = Vec::new();
    for id in 0..3 {
        sink.accept(line(id));
        connections.push(collector.next().connection);
        await_totals(&sink, sent(id + 1));
    }
    assert_eq!(connections, [0, 0, 1]);
}

#[test]
fn the_end_sends_what_is_left_at_once() {
    let collector = Collector::start(|_| Reply::status(200));
    let (exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Protobuf));
    (0..3).for_each(|id| sink.accept(line(id)));
    let began = Instant::now();
    exporter.finish(Duration::from_secs(10));
    assert!(began.elapsed() < Duration::from_secs(8), "it waited for its deadline");
    assert_eq!(sink.totals(), sent(3));
    sink.accept(line(4));
    assert_eq!(sink.totals(), SinkTotals { sent: 3, dropped: 1, ..SinkTotals::default() });
}

#[test]
fn the_end_has_a_deadline() {
    for reply in [Reply::Silence, Reply::status(503)] {
        let collector = Collector::start(move |_| reply.clone());
        let (exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Protobuf));
        (0..700).for_each(|id| sink.accept(line(id)));
        collector.next();
        let began = Instant::now();
        exporter.finish(Duration::from_millis(500));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert_eq!(sink.totals(), SinkTotals { dropped: 700, ..SinkTotals::default() });
    }
}

#[test]
fn the_end_without_lines_is_at_once() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (exporter, _sink) = start(&settings(&format!("http://{closed}"), OtlpProtocol::Json));
    let began = Instant::now();
    exporter.finish(Duration::from_secs(10));
    assert!(began.elapsed() < Duration::from_secs(5));
}
