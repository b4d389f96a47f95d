//! Writes a page with made-up content to standard output, to look at it in a browser:
//! `cargo run -p portcullis-dashboard --example preview > page.html`

use std::io::{Write as _, stdout};

use portcullis_api::{Mode, Timestamp};
use portcullis_dashboard::{
    Certificate, Change, Edge, Frame, Node, PlaintextClient, Port, PortStatus, Refused, View, page,
};

fn main() -> std::io::Result<()> {
    let now = Timestamp::from_unix(1_796_000_000);
    let ago = |seconds: i64| Timestamp::from_unix(now.unix() - seconds);
    let node = |name: &str, is_meshed: bool, mode: Option<Mode>| Node {
        name: name.to_owned(),
        namespace: if is_meshed { "shop".to_owned() } else { String::new() },
        is_meshed,
        mode,
    };
    let edge = |from: usize, to: usize, port: u16, (mtls, plaintext, refused): (u64, u64, u64), seconds: i64| Edge {
        from,
        to,
        port,
        mtls,
        plaintext,
        refused,
        last_seen: ago(seconds),
        is_exception: false,
    };
    let port = |workload: &str, port: Option<u16>, mode: Mode, mtls_percent: Option<u64>, verdict: PortStatus| Port {
        workload: workload.to_owned(),
        port,
        mode,
        decided_by: if mode == Mode::Strict { "shop/default" } else { "istio-system/default" }.to_owned(),
        location: "policies/mesh.yaml:3".to_owned(),
        mtls_percent,
        verdict,
        observed_seconds: 3 * 86_400,
        exception: None,
    };
    let certificate = |workload: &str, left: i64, problem: Option<&str>| Certificate {
        workload: workload.to_owned(),
        identity: format!("spiffe://cluster.local/ns/shop/sa/{}", workload.trim_end_matches(".shop")),
        not_before: ago(86_400 - left),
        not_after: Timestamp::from_unix(now.unix() + left),
        problem: problem.map(str::to_owned),
    };
    let view = View {
        title: "cluster.local".to_owned(),
        now,
        asked: 6,
        answered: 5,
        unreachable: vec![("stock.shop".to_owned(), "connection refused".to_owned())],
        nodes: vec![
            node("web", true, Some(Mode::Permissive)),
            node("cart", true, Some(Mode::Strict)),
            node("payment-service", true, Some(Mode::Permissive)),
            node("ledger", true, Some(Mode::Strict)),
            node("cron-report", false, None),
            node("host gateway", false, None),
            node("mail-relay-of-the-partner", false, None),
            node("stock", true, None),
        ],
        edges: vec![
            edge(0, 1, 8080, (12_844, 0, 0), 2),
            edge(1, 2, 8080, (9_120, 0, 0), 3),
            edge(4, 2, 8080, (0, 271, 0), 97),
            edge(2, 3, 5432, (4_410, 0, 0), 1),
            edge(5, 0, 8080, (0, 880, 0), 12),
            edge(4, 3, 5432, (0, 0, 14), 400),
            edge(2, 6, 25, (0, 12, 0), 4_000),
            edge(1, 7, 9090, (1_200, 31, 0), 30),
            edge(0, 7, 9090, (40, 0, 0), 9_000),
        ],
        plaintext: vec![
            PlaintextClient {
                has_sidecar_now: false,
                is_exception: false,
                name: "cron-report".to_owned(),
                address: Some("10.5.0.9".to_owned()),
                to: "payment-service:8080".to_owned(),
                transport: "plaintext",
                connections: 271,
                last_seen: ago(97),
                fix: "It has no sidecar: portcullis compose add cron-report".to_owned(),
            },
            PlaintextClient {
                has_sidecar_now: false,
                is_exception: false,
                name: "host gateway".to_owned(),
                address: Some("172.18.0.1".to_owned()),
                to: "web:8080".to_owned(),
                transport: "plaintext",
                connections: 880,
                last_seen: ago(12),
                fix: "Connections from outside reach it by a published port: publish a gateway listener instead"
                    .to_owned(),
            },
        ],
        break_glass: vec!["web.shop:8080 for another 14m (import fails, ops)".to_owned()],
        refused: vec![Refused {
            at: ago(400),
            from: "cron-report".to_owned(),
            to: "ledger:5432".to_owned(),
            reason: "plaintext_in_strict".to_owned(),
            policy: "shop/default (policies/shop.yaml:12)".to_owned(),
            hint: "the client has no sidecar; give it one, or make this port PERMISSIVE for a time".to_owned(),
            count: 14,
        }],
        ports: vec![
            port("cart.shop", Some(8080), Mode::Strict, Some(100), PortStatus::Strict),
            port("ledger.shop", Some(5432), Mode::Strict, Some(100), PortStatus::Strict),
            port("payment-service.shop", Some(8080), Mode::Permissive, Some(97), PortStatus::NotReady),
            port("payment-service.shop", Some(9090), Mode::Permissive, Some(100), PortStatus::Ready),
            port("web.shop", Some(8080), Mode::Permissive, Some(0), PortStatus::NotReady),
            port("web.shop", None, Mode::Disable, None, PortStatus::NoData),
        ],
        certificates: vec![
            certificate("cart.shop", 70_000, None),
            certificate("ledger.shop", 52_000, None),
            certificate("payment-service.shop", 9_000, None),
            certificate("web.shop", 0, Some("expired")),
        ],
        changes: vec![
            Change {
                at: ago(410),
                workload: "ledger.shop".to_owned(),
                what: "port 5432 PERMISSIVE -> STRICT (shop/default)".to_owned(),
            },
            Change { at: ago(3_700), workload: "cart.shop".to_owned(), what: "certificate renewed".to_owned() },
        ],
    };
    let frame = Frame {
        links: vec![
            ("/config_dump", "everything in force but secrets"),
            ("/stats/prometheus", "metrics"),
            ("/help", "every path"),
        ],
    };
    stdout().lock().write_all(page(&view, &frame).as_bytes())
}
