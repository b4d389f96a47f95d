//! What a peer had a hand in stays text in a log line, even what no other layer lets pass to here today.

mod support;

use portcullis_telemetry::{ConnRecord, Decision, Direction, Ending, ResponseFlag};

use support::{Log, metrics};

#[test]
fn text_of_peers_stays_text_in_both_forms() {
    let evil = "a\nb\u{1b}[31m\u{9b}2J\u{202e}\" forged=\"yes\r";
    let metrics = metrics();
    for json in [false, true] {
        let log = Log::default();
        let writer = log.clone();
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let work = || {
            let mut record = ConnRecord::open(&metrics, Direction::Inbound, "127.0.0.1:9".parse().unwrap());
            record.sni = portcullis_telemetry::ServerName::read(Some(evil.to_owned()));
            let error = Some(evil.to_owned());
            let flag = ResponseFlag::Deny;
            record.finish(&Ending { decision: Decision::Deny, reason: "x", hint: "", flag, error });
        };
        if json {
            tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), work);
        } else {
            tracing::subscriber::with_default(builder.finish(), work);
        }
        let text = log.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        let bad = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(text.contains("31m") && !text.contains(bad), "{}", text.escape_debug());
        assert!(!text.contains("\" forged=\"yes"), "{text}");
    }
}
