//! `portcullis compose add` as a process, and its output as docker-compose reads it.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

const FILE: &str = "\
x-app: &app {image: apps, restart: always}
services:
  api: {<<: *app, ports: ['8091:8000'], depends_on: [db], environment: {A: 'b$$c'}}
  db: {<<: *app, networks: {default: {aliases: [database]}}, user: '1000'}
";

/// Exit code, standard output, standard error.
fn add(arguments: &[&str], file: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["compose", "add"])
        .args(arguments)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who refuses the arguments reads nothing.
    let _unread = child.stdin.take().unwrap().write_all(file.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn docker_compose_takes_what_is_written() {
    let (code, out, err) = add(&["api", "db", "--image", "portcullis:1", "--policies", "mesh"], FILE);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("# Made by `portcullis compose add api db`"), "{out}");
    if Command::new("docker-compose").arg("version").output().is_err() {
        println!("skipped: docker-compose is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.mesh.yaml");
    fs::write(&file, &out).unwrap();
    let output = Command::new("docker-compose").arg("-f").arg(&file).arg("config").output().unwrap();
    let (config, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}\n{out}");
    let config: serde_yaml::Value = serde_yaml::from_str(&config).unwrap();
    let services = config.get("services").unwrap();
    assert_eq!(services.as_mapping().unwrap().len(), 12);
    assert_eq!(services.get("api").unwrap().get("network_mode").unwrap(), "service:api-net");
}

#[test]
fn wrong_input_is_reported_with_the_file_and_nothing_is_written() {
    let (code, out, err) = add(&["absent"], FILE);
    assert_eq!((code, out.as_str()), (Some(65), ""));
    assert!(err.contains("standard input: ") && err.contains("absent") && err.contains("api, db"), "{err}");
    let (code, out, err) = add(&["api"], "services: [\n");
    assert_eq!((code, out.as_str()), (Some(65), ""));
    assert!(err.contains("line 2"), "{err}");
    let (code, _, err) = add(&["api", "--namespace", "No Name"], FILE);
    assert_eq!(code, Some(64));
    assert!(err.contains("--namespace"), "{err}");
}

#[test]
fn a_warning_does_not_keep_the_file_from_being_written() {
    let (code, out, err) = add(&["api"], "services: {api: {image: a, privileged: true}}\n");
    assert_eq!(code, Some(0));
    assert!(out.contains("api-proxy:") && err.contains("warning: ") && err.contains("privileged"), "{err}");
}
