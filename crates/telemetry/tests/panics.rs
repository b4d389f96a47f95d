//! A panic is logged with its place, and by the connection that it ended. Alone in its process, since the hook is global.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use portcullis_telemetry::{ConnRecord, Direction, panics};

use support::{Log, metrics};

#[test]
fn a_panic_is_logged_with_its_place_and_counted_by_its_connection() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    panics::log();
    let metrics = metrics();
    let count = "portcullis_connection_panics_total{reporter=\"destination\"}";
    assert!(metrics.encode().unwrap().contains(&format!("{count} 0\n")), "there before the first, for alerts");

    for admitted in [false, true] {
        let mut record = ConnRecord::open(&metrics, Direction::Inbound, "127.0.0.1:9".parse().unwrap());
        if admitted {
            record.admit();
        }
        let task = std::thread::spawn(move || {
            let _record = record;
            let secret = "what a peer sent";
            if admitted { panic!("over {secret}") } else { panic!("as it stands in the source") }
        });
        task.join().unwrap_err();
    }
    let place = format!("tests/panics.rs:{}:", line!() - 4);

    let page = metrics.encode().unwrap();
    assert!(page.contains(&format!("{count} 2\n")), "{page}");
    assert!(page.contains("portcullis_connection_panics_total{reporter=\"source\"} 0\n"), "{page}");
    assert!(page.contains("istio_tcp_sockets_open{reporter=\"destination\"} 0\n"), "{page}");
    assert!(metrics.open_connections().is_empty());
    let text = log.text();
    assert!(!text.contains("what a peer sent") && text.contains("as it stands in the source"), "{text}");
    let logged = |part: &str| text.lines().filter(|line| line.contains(part) && line.contains(&place)).count();
    assert_eq!((logged("panic: a mistake"), logged("reason=\"panic\"")), (2, 2), "{place} in {text}");
}
