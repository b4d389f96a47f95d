//! Endpoints with https.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{Otlp, OtlpProtocol};
use portcullis_telemetry::{AccessSink as _, SinkTotals};
use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::{Authority, Profile, San};
use rustls::{ServerConnection, StreamOwned};

use crate::collector::{Collector, Reply};
use crate::{await_totals, line, sent, settings, try_start};

fn web_ca(name: &str) -> Authority {
    Authority::self_signed(&Profile { sans: None, ..Profile::authority("unused", name) })
}

/// A collector whose certificate is for 127.0.0.1.
fn collector(authority: &Authority) -> Collector {
    let profile = Profile {
        sans: Some(vec![San::Ip([127, 0, 0, 1])]),
        san_critical: false,
        extended_key_usage: Some(vec![Profile::SERVER_AUTH]),
        ..Profile::leaf("unused")
    };
    let config = Arc::new(RawPeer::presenting(&authority.issue(&profile)).server());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let wrap =
        move |stream: TcpStream| Some(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).ok()?, stream));
    Collector::wrapped(listener, |_| Reply::status(200), wrap)
}

fn https(collector: &Collector) -> Otlp {
    let mut settings = settings(&format!("https://{}", collector.address), OtlpProtocol::Protobuf);
    settings.certificate = Some(PathBuf::from("ca.pem"));
    settings
}

#[test]
fn a_certificate_of_the_named_ca_is_accepted() {
    let ca = web_ca("CN=a CA of the web");
    let collector = collector(&ca);
    let (exporter, sink) = try_start(&https(&collector), ca.bundle_pem().as_bytes()).unwrap();
    for id in 0..3 {
        sink.accept(line(id));
        await_totals(&sink, sent(id + 1));
    }
    exporter.finish(Duration::from_secs(5));
    let first = collector.next();
    assert!(first.head.starts_with("POST /v1/logs "), "{}", first.head);
    assert_eq!(collector.next().connection, first.connection, "the session is kept");
}

#[test]
fn one_of_another_ca_gets_nothing() {
    let collector = collector(&web_ca("CN=a CA of the web"));
    let roots = web_ca("CN=another CA").bundle_pem();
    let (exporter, sink) = try_start(&https(&collector), roots.as_bytes()).unwrap();
    sink.accept(line(1));
    assert!(collector.is_idle_for(Duration::from_secs(3)), "a request was sent");
    exporter.finish(Duration::from_millis(200));
    assert_eq!(sink.totals(), SinkTotals { dropped: 1, ..SinkTotals::default() });
}

#[test]
fn roots_that_are_none_stop_the_start() {
    let mut settings = settings("https://127.0.0.1:1", OtlpProtocol::Protobuf);
    for certificate in [None, Some(PathBuf::from("ca.pem"))] {
        settings.certificate = certificate;
        assert!(try_start(&settings, b"no certificate").is_err());
    }
}
