//! Collectors that are slow, dead, busy or unwilling.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use portcullis_config::OtlpProtocol;
use portcullis_telemetry::{AccessSink as _, SinkTotals};

use crate::collector::{Collector, Reply};
use crate::{await_totals, line, sent, settings, start};

#[test]
fn a_busy_collector_is_asked_again_when_it_says() {
    for status in [429, 503] {
        let wait = "retry-after: 3\r\n";
        let collector =
            Collector::start(move |n| if n == 0 { Reply::with(status, wait, b"") } else { Reply::status(200) });
        let (_exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Protobuf));
        sink.accept(line(1));
        let [first, second] = [collector.next(), collector.next()];
        // Its own first pause is a second at most.
        let pause = second.at - first.at;
        assert!(pause >= Duration::from_millis(2900), "{status}: {pause:?}");
        assert_eq!(first.body, second.body);
        await_totals(&sink, sent(1));
    }
}

#[test]
fn what_may_pass_is_tried_again_without_a_word() {
    for reply in [Reply::status(502), Reply::status(504), Reply::Hangup] {
        let collector = Collector::start(move |n| if n == 0 { reply.clone() } else { Reply::status(200) });
        let (_exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Protobuf));
        sink.accept(line(1));
        assert_eq!(collector.next().body, collector.next().body);
        await_totals(&sink, sent(1));
    }
}

#[test]
fn what_is_refused_is_not_sent_again() {
    let collector = Collector::start(|n| if n == 0 { Reply::with(400, "", b"no tenant") } else { Reply::status(200) });
    let (_exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Protobuf));
    sink.accept(line(1));
    collector.next();
    await_totals(&sink, SinkTotals { refused: 1, ..SinkTotals::default() });
    assert!(collector.is_idle_for(Duration::from_secs(2)), "it was sent again");
    sink.accept(line(2));
    await_totals(&sink, SinkTotals { refused: 1, sent: 1, ..SinkTotals::default() });
}

#[test]
fn refused_lines_of_a_partial_success_are_counted() {
    let body = br#"{"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "too old"}}"#;
    let collector = Collector::start(|_| Reply::with(200, "content-type: application/json\r\n", body));
    let (_exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Json));
    (0..5).for_each(|id| sink.accept(line(id)));
    await_totals(&sink, SinkTotals { sent: 3, refused: 2, dropped: 0 });
}

#[test]
fn a_slow_collector_is_given_up_and_asked_again() {
    let collector = Collector::start(|n| if n == 0 { Reply::Silence } else { Reply::status(200) });
    let mut settings = settings(&collector.url(), OtlpProtocol::Protobuf);
    settings.timeout = Duration::from_millis(300);
    let (_exporter, sink) = start(&settings);
    sink.accept(line(1));
    let [first, second] = [collector.next(), collector.next()];
    assert_ne!(
        first.connection, second.connection,
        "an answer to the first request would be taken for one to the second"
    );
    await_totals(&sink, sent(1));
}

#[test]
fn lines_wait_for_a_collector_that_is_not_there_yet() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (_exporter, sink) = start(&settings(&format!("http://{address}"), OtlpProtocol::Protobuf));
    sink.accept(line(1));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(sink.totals(), SinkTotals::default());
    let _collector = Collector::on(TcpListener::bind(address).unwrap(), |_| Reply::status(200));
    await_totals(&sink, sent(1));
}

#[test]
fn a_dead_collector_costs_connections_nothing() {
    let collector = Collector::start(|_| Reply::Silence);
    let (_exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Protobuf));
    sink.accept(line(0));
    collector.next();
    let began = Instant::now();
    (0..100_000).for_each(|id| sink.accept(line(id)));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let totals = sink.totals();
    assert_eq!((totals.sent, totals.dropped), (0, 100_000 - 2048));
}

#[test]
fn an_answer_without_end_is_not_read() {
    let large = vec![b'x'; 100_000];
    let collector = Collector::start(move |n| if n == 0 { Reply::with(200, "", &large) } else { Reply::status(200) });
    let (_exporter, sink) = start(&settings(&collector.url(), OtlpProtocol::Protobuf));
    sink.accept(line(1));
    assert_eq!([collector.next().connection, collector.next().connection], [0, 1]);
    await_totals(&sink, sent(1));
}
