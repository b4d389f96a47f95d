//! Commands that ask running sidecars: two real ones, one that is down, a server that is none, a Unix socket, and hostile answers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::support::{BIN, CART, Ran, Scene, Sidecar, WEB, eventually, free_address, passed};

/// Runs a command on these proxies.
pub(crate) fn on(proxies: &[&Sidecar], arguments: &[&str]) -> Ran {
    let addresses: Vec<String> = proxies.iter().map(|proxy| format!("--admin={}", proxy.admin)).collect();
    let addresses = addresses.iter().map(String::as_str);
    command(arguments.iter().copied().chain(addresses))
}

pub(crate) fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Ran {
    let mut command = Command::new(BIN);
    command.args(arguments).stdin(Stdio::null()).env_remove("PORTCULLIS_PROXIES").env_remove("DOCKER_HOST");
    command.output().unwrap().into()
}

/// The cells of a table, whose columns are three spaces apart or more.
pub(crate) fn cells(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

/// An admin server that answers everything with this.
pub(crate) fn hostile(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                request.extend(byte);
            }
            let request = String::from_utf8_lossy(&request);
            let path = request.split(' ').nth(1).unwrap_or_default();
            let body = answer(path);
            let _gone = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    address
}

/// Nobody listens there.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn proxy_status_has_a_row_for_every_proxy() {
    let scene = Scene::new("STRICT");
    let (web, _) = scene.web();
    let down = nobody();
    let other = hostile(|_| "<html>".to_owned());
    let (down, other) = (format!("--admin={down}"), format!("--admin={other}"));
    let ran = on(&[&scene.cart, &web], &["proxy-status", &down, &other]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let rows = cells(&ran.out);
    assert_eq!(rows[0], ["NAME", "NAMESPACE", "POLICY HASH", "SYNCED", "CERT", "VERSION"]);
    assert_eq!((rows[1][0], rows[1][1], rows[1][3], rows[1][2].len()), ("cart", "shop", "SYNCED", 12), "{}", ran.out);
    // It has no policy folder.
    assert_eq!((rows[2][0], rows[2][2], rows[2][3]), ("web", "-", "-"), "{}", ran.out);
    assert!(
        rows[1][4].starts_with(|c: char| c.is_ascii_digit()) && rows[1][5] == env!("CARGO_PKG_VERSION"),
        "{}",
        ran.out
    );
    let words: Vec<_> = rows[3..].iter().map(|row| row[3]).collect();
    assert_eq!(words, ["REFUSED", "NOT-A-SIDECAR"], "{}", ran.out);
    assert!(ran.err.contains("no admin server listens there"), "{}", ran.err);

    let json = on(&[&scene.cart, &web], &["proxy-status", "-o", "json", &down]).json();
    assert_eq!((&json["apiVersion"], &json["kind"]), (&"portcullis/v1".into(), &"ProxyStatusList".into()));
    let cart = &json["items"][0];
    assert_eq!((&cart["identity"], &cart["synced"], &cart["state"]), (&CART.into(), &"SYNCED".into(), &"LIVE".into()));
    assert_eq!(cart["policyHash"].as_str().unwrap().len(), 64);
    assert_eq!(json["unanswered"][0]["reason"], "refused");

    let names = on(&[&scene.cart, &web], &["proxy-status", "-o", "name"]);
    assert_eq!(names.out, "proxy/cart.shop\nproxy/web.shop\n");
    let one = on(&[&scene.cart, &web], &["proxy-status", "web", "--no-headers"]);
    assert_eq!(cells(&one.out).len(), 1, "{}", one.out);
    let none = on(&[&scene.cart, &web], &["proxy-status", "pay.shop"]);
    assert!(none.code == Some(1) && none.err.contains("these answer: cart.shop, web.shop"), "{}", none.err);
}

#[test]
fn a_proxy_with_other_policies_or_a_mistake_in_them_is_told() {
    let scene = Scene::new("STRICT");
    let second = |name: &str, policies: &str| {
        let body = format!(
            "workload: {{name: {name}, namespace: shop, spiffeId: \"{WEB}\"}}\npolicies: ./{policies}\n\
             identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n"
        );
        Sidecar::start(scene.path(), name, &body)
    };
    // The same content under other names.
    fs::create_dir(scene.path().join("copy")).unwrap();
    fs::copy(scene.path().join("policies/shop.yaml"), scene.path().join("copy/a.yaml")).unwrap();
    let (same, mistaken) = (second("same", "copy"), second("mistaken", "policies"));
    let status = || {
        let json = on(&[&scene.cart, &same, &mistaken], &["proxy-status", "-o", "json"]).json();
        let words = json["items"].as_array().unwrap().iter().map(|item| item["synced"].as_str().unwrap().to_owned());
        words.collect::<Vec<_>>()
    };
    assert_eq!(status(), ["SYNCED", "SYNCED", "SYNCED"]);
    fs::write(scene.path().join("copy/b.yaml"), "# one more file\n").unwrap();
    eventually("the copy differs", || (status() == ["SYNCED", "SYNCED", "DIFFERS"]).then_some(()));
    fs::write(scene.path().join("copy/b.yaml"), "kind: x\n").unwrap();
    eventually("the copy is stale", || (status() == ["SYNCED", "SYNCED", "STALE"]).then_some(()));
    let wide = on(&[&same], &["proxy-status", "-o", "wide"]);
    assert!(wide.out.contains("b.yaml:1"), "{}", wide.out);
}

#[test]
fn connections_are_shown_from_both_sides() {
    let scene = Scene::new("PERMISSIVE");
    let (web, listen) = scene.web();
    let mut stream = TcpStream::connect(listen).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut plain = TcpStream::connect(scene.inbound).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let json = eventually("three connections", || {
        let json = on(&[&scene.cart, &web], &["connections", "-o", "json"]).json();
        (json["items"].as_array().unwrap().len() == 3).then_some(json)
    });
    let find = |workload: &str, transport: &str| {
        let items = json["items"].as_array().unwrap();
        items.iter().find(|item| item["workload"] == workload && item["transport"] == transport).unwrap().clone()
    };
    let (at_cart, at_web) = (find("cart", "mtls"), find("web", "mtls"));
    assert_eq!((&at_cart["peer"], &at_web["peer"]), (&WEB.into(), &CART.into()));
    assert_eq!(find("cart", "plaintext")["peer"], Value::Null);

    let ran = on(&[&scene.cart, &web], &["connections"]);
    let rows = cells(&ran.out);
    let headers = ["WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL", "MTLS", "PEER ID", "AGE"];
    assert_eq!(rows[0], headers);
    let row = |workload: &str, mtls: &str| {
        rows.iter().find(|row| row[0] == workload && row[6] == mtls).unwrap_or_else(|| panic!("{}", ran.out)).clone()
    };
    let (cart, web_row, plain_row) = (row("cart.shop", "yes"), row("web.shop", "yes"), row("cart.shop", "no"));
    let inbound = scene.inbound.to_string();
    assert_eq!((cart[1], cart[2], cart[5], cart[7]), ("inbound", inbound.as_str(), "TLS", WEB), "{}", ran.out);
    assert_eq!((web_row[1], web_row[5], web_row[7]), ("outbound", "TLS", CART), "{}", ran.out);
    assert_eq!((plain_row[5], plain_row[7]), ("TCP", "-"), "{}", ran.out);
    let only = on(&[&scene.cart, &web], &["connections", "--mtls", "no", "--no-headers", "-n", "shop"]);
    assert_eq!(cells(&only.out).len(), 1, "{}", only.out);
    assert_eq!(on(&[&scene.cart], &["connections", "-n", "other", "--no-headers"]).out, "");
}

#[test]
fn without_any_answer_the_exit_code_says_so() {
    let down = format!("--admin={}", nobody());
    for name in ["proxy-status", "connections"] {
        let ran = command([name, &down]);
        assert!(ran.code == Some(69) && ran.err.contains("no proxy answers"), "{name}: {:?} {}", ran.code, ran.err);
    }
    let wrong = command(["connections", "--admin", "https://cart"]);
    assert!(wrong.code == Some(64) && wrong.err.contains("plain HTTP"), "{}", wrong.err);
    let list = tempfile::tempdir().unwrap();
    let file = list.path().join("proxies");
    fs::write(&file, "# none\nnot an address\n").unwrap();
    let wrong = command(["connections", "--proxies", file.to_str().unwrap()]);
    assert!(wrong.code == Some(65) && wrong.err.contains("proxies:2: "), "{:?} {}", wrong.code, wrong.err);
}

#[test]
fn proxies_are_found_in_a_file_and_in_the_environment() {
    let scene = Scene::new("STRICT");
    let (web, _) = scene.web();
    let file = scene.path().join("proxies.yaml");
    fs::write(&file, format!("# the shop\n- {}\n- \"http://{}\"\n", scene.cart.admin, web.admin)).unwrap();
    let file = file.to_str().unwrap();
    let by_flag = command(["proxy-status", "-o", "name", "--proxies", file]);
    assert_eq!(by_flag.out, "proxy/cart.shop\nproxy/web.shop\n", "{}", by_flag.err);
    let by_variable: Ran =
        Command::new(BIN).args(["proxy-status", "-o", "name"]).env("PORTCULLIS_PROXIES", file).output().unwrap().into();
    assert_eq!(by_variable.out, by_flag.out, "{}", by_variable.err);
    let by_name = command(["proxy-status", "-o", "name", "--proxies", &format!("dns:{}", scene.cart.admin)]);
    assert_eq!(by_name.out, "proxy/cart.shop\n", "{}", by_name.err);
}

#[test]
fn an_engine_that_knows_the_sidecar_is_asked_for_it() {
    let scene = Scene::new("STRICT");
    let socket = scene.path().join("docker.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let admin = scene.cart.admin;
    let engine = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        let body = format!(
            "[{{\"Names\": [\"/shop-cart-net-1\"], \"Labels\": {{\"portcullis.sidecar-of\": \"cart\", \
             \"portcullis.admin-port\": \"{}\"}}, \"NetworkSettings\": {{\"Networks\": {{\"shop\": {{\"IPAddress\": \
             \"{}\"}}}}}}}}]",
            admin.port(),
            admin.ip()
        );
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let ran = command(["proxy-status", "-o", "name", &format!("--docker={}", socket.display())]);
    assert_eq!(ran.out, "proxy/cart.shop\n", "{}", ran.err);
    let request = engine.join().unwrap();
    assert!(request.starts_with("GET /containers/json?filters="), "{request}");
}

#[test]
fn text_of_a_hostile_proxy_never_reaches_the_terminal() {
    const EVIL: &str = "\\u001b[2J\\u009b31mcart\\nproxy/fake.shop\\u202e";
    let evil = hostile(|path| match path {
        "/server_info" => {
            format!(
                "{{\"name\": \"{EVIL}\", \"namespace\": \"{EVIL}\", \"version\": \"{EVIL}\", \"state\": \"{EVIL}\"}}"
            )
        }
        "/policies" => format!("{{\"hash\": \"{EVIL}\", \"problem\": {{\"message\": \"{EVIL}\"}}}}"),
        "/certs" => "{}".to_owned(),
        _ => format!(
            "{{\"connections\": [{{\"connId\": 1, \"direction\": \"inbound\", \"source\": \"{EVIL}\", \"age\": \
             \"1e300s\", \"peer\": \"{EVIL}\", \"policy\": \"{EVIL}\"}}]}}"
        ),
    });
    let evil = format!("--admin={evil}");
    for name in ["proxy-status", "connections"] {
        for format in ["table", "wide", "json", "yaml", "name"] {
            let ran = command([name, &evil, "-o", format]);
            assert_eq!(ran.code, Some(0), "{name} {format}: {}", ran.err);
            for text in [&ran.out, &ran.err] {
                let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
                assert_eq!(bad, None, "{name} {format}: {text:?}");
            }
            if format == "name" {
                assert_eq!(ran.out.lines().count(), 1, "a name breaks out of its line: {:?}", ran.out);
            }
        }
    }
}

#[test]
fn huge_and_nested_answers_are_given_up() {
    let huge = hostile(|_| "[".repeat(17 * 1024 * 1024));
    let nested = hostile(|_| format!("{{\"name\": {}", "[".repeat(1_000_000)));
    let (huge, nested) = (format!("--admin={huge}"), format!("--admin={nested}"));
    let ran = command(["connections", &huge, &nested, "--timeout", "60s"]);
    assert_eq!(ran.code, Some(69), "{}", ran.err);
    assert!(ran.err.contains("larger than") && ran.err.contains("has another form"), "{}", ran.err);
}

#[test]
fn colour_and_headers_follow_the_command_line_and_the_environment() {
    let scene = Scene::new("STRICT");
    let plain = on(&[&scene.cart], &["proxy-status"]);
    assert!(!plain.out.contains('\u{1b}'), "{:?}", plain.out);
    let coloured = on(&[&scene.cart], &["proxy-status", "--color=always"]);
    assert!(coloured.out.contains("\u{1b}[32mSYNCED\u{1b}[0m"), "{:?}", coloured.out);
    let admin = format!("--admin={}", scene.cart.admin);
    let with = |name: &str| -> Ran {
        Command::new(BIN).args(["proxy-status", &admin]).env(name, "1").output().unwrap().into()
    };
    assert!(with("CLICOLOR_FORCE").out.contains('\u{1b}') && !with("NO_COLOR").out.contains('\u{1b}'));
    assert!(on(&[&scene.cart], &["proxy-status", "-o", "text"]).out.starts_with("NAME"));
}

fn ask_socket(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_sidecar_with_an_admin_socket_needs_no_admin_port() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    let (config, socket) = (folder.path().join("cart.yaml"), run.join("admin.sock"));
    let text = "workload: {name: cart, namespace: shop}\nadmin: {socket: run/admin.sock}\nworkers: 1\n";
    fs::write(&config, text).unwrap();
    let start = || {
        let cart = Sidecar::launch(&config, free_address());
        eventually("the socket", || socket.exists().then_some(()));
        cart
    };
    let mut cart = start();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let address = format!("--admin=unix:{}", socket.display());
    let ran = eventually("an answer", || {
        Some(command(["proxy-status", "-o", "name", &address])).filter(|ran| ran.code == Some(0))
    });
    assert_eq!(ran.out, "proxy/cart.shop\n");
    // A second proxy does not take the socket away.
    let second: Ran = Command::new(BIN).args(["proxy", "-c", config.to_str().unwrap()]).output().unwrap().into();
    assert!(second.code == Some(1) && second.err.contains("another process listens there"), "{}", second.err);
    // Changes are possible, as on loopback.
    assert!(ask_socket(&socket, "POST /logging?level=debug").starts_with("HTTP/1.1 200"));
    assert!(ask_socket(&socket, "GET /quitquitquit").starts_with("HTTP/1.1 405"));
    assert!(ask_socket(&socket, "POST /quitquitquit").starts_with("HTTP/1.1 200"));
    let status = eventually("its end", || cart.child.try_wait().unwrap());
    assert!(status.success() && !socket.exists(), "{status} {}", cart.read_log());
    // What a killed one leaves behind is replaced.
    let mut killed = start();
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert!(socket.exists());
    let _third = Sidecar::launch(&config, free_address());
    eventually("the third", || Some(command(["proxy-status", &address])).filter(|ran| ran.code == Some(0)));
    // A page of another origin changes nothing here either.
    let mut stream = UnixStream::connect(&socket).unwrap();
    write!(
        stream,
        "POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[test]
fn a_command_asks_and_changes_nothing() {
    let scene = Scene::new("STRICT");
    let (web, listen) = scene.web();
    assert!(passed(listen, b"x"));
    for arguments in [&["proxy-status"][..], &["connections"]] {
        assert_eq!(on(&[&scene.cart, &web], arguments).code, Some(0));
    }
    assert!(!scene.cart.read_log().contains("admin change") && passed(listen, b"y"));
}
