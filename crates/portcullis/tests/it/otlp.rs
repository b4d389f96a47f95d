//! The access log goes to an OpenTelemetry collector, from within the sandbox, and never at the cost of a connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::Value;

use crate::support::raw::Mesh;
use crate::support::{App, PATIENCE, Sidecar, eventually, passed};

/// Answers every request, and hands out the records of each.
fn collector() -> (SocketAddr, Receiver<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap()];
            stream.read_exact(&mut body).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let records = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap().clone();
            sender.send(records).unwrap();
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        }
    });
    (address, requests)
}

fn attribute<'r>(record: &'r Value, key: &str) -> &'r Value {
    let attributes = record["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    found.unwrap_or_else(|| panic!("{key} in {record}"))["value"].as_object().unwrap().values().next().unwrap()
}

fn to(address: SocketAddr) -> String {
    format!("telemetry: {{otlp: {{endpoint: \"http://{address}\", protocol: http/json}}}}\n")
}

fn has_exporter(sidecar: &Sidecar) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", sidecar.child.id())).unwrap();
    tasks.flatten().any(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "otlp"))
}

#[test]
fn lines_reach_the_collector_from_within_the_sandbox() {
    let (mesh, app, (address, requests)) = (Mesh::new("PERMISSIVE"), App::start(), collector());
    let (cart, inbound) = mesh.cart_with(app.address, &to(address), |command: &mut Command| {
        command.args(["--access-log", "off"]).env("OTEL_SERVICE_NAME", "shop-cart");
    });
    assert!(has_exporter(&cart));
    assert!(passed(inbound, b"hello"));
    let records = requests.recv_timeout(PATIENCE).unwrap();
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(record["body"]["stringValue"], "connection complete");
    assert_eq!(attribute(record, "portcullis.mode"), "PERMISSIVE");
    assert_eq!(attribute(record, "portcullis.bytes_received"), "5");
    assert_eq!(attribute(record, "destination.port"), &Value::from(inbound.port().to_string()));
    eventually("the metric", || {
        let page = cart.get("/stats/prometheus").unwrap();
        page.contains("portcullis_otlp_log_records_total{result=\"sent\"} 1").then_some(())
    });
}

#[test]
fn the_end_of_the_process_sends_what_is_left() {
    let (mesh, app, (address, requests)) = (Mesh::new("PERMISSIVE"), App::start(), collector());
    let (mut cart, inbound) = mesh.cart_with(app.address, &to(address), |_| ());
    assert!(passed(inbound, b"hello"));
    cart.signal("TERM");
    assert!(cart.child.wait().unwrap().success());
    let records: Vec<Value> = requests.try_iter().flatten().collect();
    assert_eq!(records.len(), 1, "{records:?}");
}

#[test]
fn a_collector_that_is_silent_delays_neither_connections_nor_the_end() {
    let (mesh, app) = (Mesh::new("PERMISSIVE"), App::start());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut cart, inbound) = mesh.cart_with(app.address, &to(silent.local_addr().unwrap()), |_| ());
    for n in 0..50 {
        assert!(passed(inbound, format!("payload {n}").as_bytes()));
    }
    let began = Instant::now();
    cart.signal("TERM");
    assert!(cart.child.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn without_an_endpoint_there_is_no_exporter() {
    let (mesh, app) = (Mesh::new("PERMISSIVE"), App::start());
    let (cart, inbound) = mesh.cart_with(app.address, "", |command: &mut Command| {
        // Meant for the app's SDK.
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    });
    assert!(passed(inbound, b"hello"));
    assert!(!has_exporter(&cart));
    assert!(!cart.get("/stats/prometheus").unwrap().contains("otlp"));
}

#[test]
fn a_variable_that_cannot_be_used_stops_the_start() {
    let (mesh, app) = (Mesh::new("PERMISSIVE"), App::start());
    let config = mesh.path().join("bad.yaml");
    fs::write(&config, format!("workload: {{name: cart, namespace: shop}}\n{}", to(app.address))).unwrap();
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://collector"),
    ] {
        let mut command = Command::new(crate::support::BIN);
        command.args(["proxy", "--config", config.to_str().unwrap()]).env(name, value);
        if name.ends_with("LOGS_ENDPOINT") {
            command.env("OTEL_EXPORTER_OTLP_CERTIFICATE", mesh.path().join("missing.pem"));
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{name}: {said}");
        let expected = if name.ends_with("LOGS_ENDPOINT") { "missing.pem" } else { name };
        assert!(said.contains(expected), "{name}: {said}");
    }
}
