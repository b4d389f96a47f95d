//! `portcullis compose add` as a process, and its output as docker-compose reads it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
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
    assert_eq!(services.as_mapping().unwrap().len(), 10);
    for part in ["api-net", "db-proxy", "ca"] {
        let part = services.get(part).unwrap();
        assert_eq!(part.get("image").unwrap(), "portcullis:1", "the shared part");
        assert_eq!(part.get("read_only").unwrap().as_bool(), Some(true));
    }
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

/// In a folder, as somebody runs it there.
fn run_in(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("compose").args(arguments).current_dir(folder).env_remove("COMPOSE_FILE").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn files_are_written_changed_and_removed_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let read = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
    fs::write(path("docker-compose.yml"), FILE).unwrap();
    fs::write(path(".env"), "PASSWORD=x\n").unwrap();
    fs::set_permissions(path("docker-compose.yml"), fs::Permissions::from_mode(0o640)).unwrap();
    let (code, out, err) = run_in(folder.path(), &["add", "api", "--write", "-n", "shop"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains("docker-compose stop api\n") && err.contains("up --detach"), "{err}");
    assert!(path("policies").is_dir());
    assert!(read(".env").starts_with("PASSWORD=x\n") && read(".env").ends_with("\nCOMPOSE_FILE=compose.mesh.yaml\n"));
    let mode = fs::metadata(path("compose.mesh.yaml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "what others must not read they must not read here");
    let first = read("compose.mesh.yaml");
    // One more; the namespace is remembered.
    let (code, _, err) = run_in(folder.path(), &["add", "db", "--write"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("docker-compose stop db\n"), "{err}");
    assert!(read("compose.mesh.yaml").contains("PORTCULLIS_WORKLOAD: shop/db"));
    // The original was changed.
    fs::write(path("docker-compose.yml"), FILE.replace("8091:", "8092:")).unwrap();
    assert_eq!(run_in(folder.path(), &["add", "--write"]).0, Some(0));
    assert!(read("compose.mesh.yaml").contains("8092:8000"));
    fs::write(path("docker-compose.yml"), FILE).unwrap();
    let (code, _, err) = run_in(folder.path(), &["remove", "web"]);
    assert_eq!(code, Some(65));
    assert!(err.contains("web: ") && err.contains("api, db"), "{err}");
    assert_eq!(run_in(folder.path(), &["remove", "db"]).0, Some(0));
    assert_eq!(read("compose.mesh.yaml"), first);
    assert_eq!(run_in(folder.path(), &["remove", "--all"]).0, Some(0));
    assert!(!path("compose.mesh.yaml").exists());
    assert_eq!((read(".env").as_str(), read("docker-compose.yml").as_str()), ("PASSWORD=x\n", FILE));
}

#[test]
fn files_that_plain_commands_would_not_use_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let refused = |needle: &str, code: i32| {
        let (found, out, err) = run_in(folder.path(), &["add", "api", "--write"]);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{err}");
        assert!(err.contains(needle), "{needle}: {err}");
        assert!(!path("compose.mesh.yaml").exists() || needle.contains("move it away"));
    };
    refused("there is no compose file", 64);
    fs::write(path("compose.yaml"), FILE).unwrap();
    fs::write(path("docker-compose.yml"), FILE).unwrap();
    refused("compose.yaml and docker-compose.yml", 64);
    fs::remove_file(path("docker-compose.yml")).unwrap();
    fs::write(path("compose.override.yaml"), FILE).unwrap();
    refused("compose.override.yaml would no longer count", 64);
    fs::remove_file(path("compose.override.yaml")).unwrap();
    fs::write(path(".env"), "COMPOSE_FILE=compose.yaml:more.yaml\n").unwrap();
    refused("several files", 64);
    fs::remove_file(path(".env")).unwrap();
    fs::write(path("compose.mesh.yaml"), "services: {}\n").unwrap();
    refused("move it away", 65);
}

#[test]
fn status_tells_apart_what_runs_behind_its_sidecar_and_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), FILE).unwrap();
    assert_eq!(run_in(folder.path(), &["add", "api", "db", "--write"]).0, Some(0));
    let real = fs::canonicalize(folder.path()).unwrap();
    let engine = Engine::start(&folder.path().join("engine.sock"), &real);
    let socket = folder.path().join("engine.sock");
    let (code, out, err) = run_in(folder.path(), &["status", "--docker", socket.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("api       captured") && out.contains("db        bypassed"), "{out}");
    assert!(err.contains("WARNING: db has no protection") && err.contains("docker-compose stop db"), "{err}");
    assert!(!err.contains("was changed"), "{err}");
    fs::write(folder.path().join("compose.yaml"), FILE.replace("8091:", "8092:")).unwrap();
    let (_, out, err) = run_in(folder.path(), &["status", "-o", "json", "--docker", socket.to_str().unwrap()]);
    assert!(err.contains("compose.yaml was changed since"), "{err}");
    let items: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(items["items"][1]["state"], "bypassed");
    drop(engine);
    let (code, _, err) = run_in(folder.path(), &["status", "--docker", "/nowhere/engine.sock"]);
    assert_eq!(code, Some(69), "{err}");
}

#[test]
fn status_knows_a_file_that_was_made_by_redirection() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), FILE).unwrap();
    let (code, out, err) = run_in(folder.path(), &["add", "api", "db", "-f", "compose.yaml"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("# Plain docker-compose commands do not use this file") && err.contains("--write"), "{err}");
    fs::write(folder.path().join("compose.mesh.yaml"), out).unwrap();
    let real = fs::canonicalize(folder.path()).unwrap();
    let engine = Engine::start(&folder.path().join("engine.sock"), &real);
    let socket = folder.path().join("engine.sock");
    let (code, out, err) = run_in(folder.path(), &["status", "--docker", socket.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("api       captured") && out.contains("db        bypassed"), "{out}");
    assert!(err.contains("`docker-compose --file compose.mesh.yaml up --detach`"), "{err}");
    assert!(err.contains("made by redirection: write COMPOSE_FILE=compose.mesh.yaml into .env"), "{err}");
    drop(engine);
    let (code, _, err) = run_in(folder.path(), &["add", "api", "--write"]);
    assert_eq!(code, Some(65), "{err}");
    assert!(err.contains("Remove it, and run `portcullis compose add api db --write`"), "{err}");
}

/// The socket of an engine with the containers of a project: api behind its sidecar, db started without.
struct Engine(Option<std::thread::JoinHandle<()>>, std::path::PathBuf);

impl Engine {
    fn start(socket: &Path, folder: &Path) -> Self {
        let entry = |id: &str, service: &str, mode: &str| {
            serde_json::json!({"Id": id, "State": "running", "HostConfig": {"NetworkMode": mode}, "Labels": {
                "com.docker.compose.project": "shop", "com.docker.compose.service": service,
                "com.docker.compose.project.working_dir": folder}})
        };
        let list = serde_json::json!([
            entry("a", "api-net", "shop_default"),
            entry("b", "api-proxy", "container:a"),
            entry("c", "api", "container:a"),
            entry("d", "db", "shop_default")
        ]);
        let listener = UnixListener::bind(socket).unwrap();
        let answer = move |mut stream: UnixStream| -> Option<bool> {
            let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
            let request = lines.next()?.ok()?;
            if request.contains("/stop") {
                return Some(true);
            }
            while !lines.next()?.ok()?.is_empty() {}
            let started = serde_json::json!({"State": {"StartedAt": "2026-11-30T08:00:00.5Z"}});
            let body = if request.contains("/containers/json") { list.to_string() } else { started.to_string() };
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
                .ok()?;
            Some(false)
        };
        let serve = move || {
            for stream in listener.incoming() {
                if answer(stream.unwrap()) == Some(true) {
                    return;
                }
            }
        };
        Self(Some(std::thread::spawn(serve)), socket.to_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Ok(mut stream) = UnixStream::connect(&self.1) {
            let _sent = stream.write_all(b"GET /stop HTTP/1.1\r\n\r\n");
        }
        self.0.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_project_joins_with_what_is_a_token_and_of_the_right_root() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("compose.yaml"), FILE).unwrap();
    let add = |further: &[&str]| {
        let fixed = ["add", "api", "-f", "compose.yaml", "--ca", "ca.example.org:15012"];
        run_in(folder.path(), &[&fixed, further].concat())
    };
    let (code, _, err) = add(&[]);
    assert!(code == Some(64) && err.contains("--token-file"), "{err}");
    let (code, _, err) = add(&["--token-file", "join-token"]);
    assert!(code == Some(65) && err.contains("join-token"), "{err}");
    fs::write(path("join-token"), "eyJhbGciOiJFUzI1NiJ9.e30.x\n").unwrap();
    let (code, out, err) = add(&["--token-file", "join-token"]);
    assert!(code == Some(65) && err.contains("ca join-token create"), "{err}");
    assert_eq!(out, "");
    fs::write(path("join-token"), format!("pcjoin1.0123456789ab.{}.{}\n", "0".repeat(64), "f".repeat(64))).unwrap();
    let (code, out, err) = add(&["--token-file", "join-token"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("ca-join:") && out.contains("./join-token") && !out.contains("ca-init"), "{out}");
    assert!(!out.contains(&"f".repeat(64)), "the token is in the file that it names, and nowhere else");
    let made = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["certs", "init", "--out"])
        .arg(path("other"))
        .output()
        .unwrap();
    assert!(made.status.success());
    let (code, _, err) = add(&["--token-file", "join-token", "--trust-bundle", "other/root-cert.pem"]);
    assert!(code == Some(65) && err.contains("one of them is of another CA"), "{err}");
}
