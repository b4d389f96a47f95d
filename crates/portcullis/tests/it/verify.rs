//! `portcullis verify` against real sidecars in each mode, a real openssl server, and servers that are broken on purpose.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::{Authority, Profile};
use serde_json::Value;

use super::support::raw::{Mesh, identity_files, tls_server};
use super::support::{CART, Ran, WEB, eventually, free_address, run};

/// Long enough for a busy machine, short enough for an attempt that waits to the end.
const TIMEOUT: &str = "3s";

/// An app that answers a request of HTTP and nothing else, in plaintext.
fn http_app() -> SocketAddr {
    app(|mut stream| {
        let mut request = Vec::new();
        let mut buffer = [0; 512];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => request.extend_from_slice(&buffer[..count]),
            }
            if !request.starts_with(b"G") {
                let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
                return;
            }
        }
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    })
}

/// Serves every connection in a thread of its own.
fn app(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn files(folder: &Path) -> [String; 6] {
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    ["--cert".into(), file("cert.pem"), "--key".into(), file("key.pem"), "--ca".into(), file("ca.pem")]
}

fn verify(target: SocketAddr, more: &[&str]) -> Ran {
    let target = target.to_string();
    run(&[&["verify", &target, "--timeout", TIMEOUT, "-o", "json"], more].concat())
}

/// Attempt to what was got and the verdict.
fn rows(ran: &Ran) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let json = ran.json();
    let items = json["items"].as_array().unwrap();
    items.iter().map(|row| (text(&row["attempt"]), (text(&row["got"]), text(&row["verdict"])))).collect()
}

fn with_credentials<'a>(folder: &'a [String; 6], more: &[&'a str]) -> Vec<&'a str> {
    folder.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn a_sidecar_does_in_each_mode_what_its_policy_says() {
    let mesh = Mesh::new("STRICT");
    let (cart, listen) = mesh.cart(http_app(), |_| ());
    let web = files(&mesh.path().join("web"));
    let config = mesh.path().join("cart.yaml");
    let policies = mesh.path().join("policies");
    let policies = ["-f", policies.to_str().unwrap(), "-n", "shop", "-p", "8080"];
    for mode in ["STRICT", "PERMISSIVE", "DISABLE"] {
        mesh.set_mode(mode);
        eventually("the mode is in force", || {
            let answer: String = cart.get("/explain?port=8080")?.split_whitespace().collect();
            answer.contains(&format!("\"port\":8080,\"mode\":\"{mode}\"")).then_some(())
        });
        // A change of DISABLE admits both for half a second.
        let ran = eventually("all as expected", || {
            let ran = verify(listen, &with_credentials(&web, &policies));
            (ran.code == Some(0) || mode != "DISABLE" && ran.code == Some(1)).then_some(ran)
        });
        let rows = rows(&ran);
        assert_eq!(ran.code, Some(0), "{mode}: {}", ran.out);
        assert_eq!(ran.json()["mode"], mode);
        let got = |attempt: &str| rows[attempt].0.as_str();
        match mode {
            "STRICT" => {
                for refused in
                    ["plaintext", "no-certificate", "wrong-ca", "expired", "wrong-identity", "tls1.2", "tls1.0"]
                {
                    assert_eq!(got(refused), "refused", "{refused}: {}", ran.out);
                }
                assert_eq!((got("right-identity"), got("no-alpn")), ("accepted", "accepted"));
                assert_eq!((got("resumption"), got("early-data")), ("refused", "refused"));
                assert_eq!(got("server-identity"), CART);
            }
            "PERMISSIVE" => {
                assert_eq!((got("plaintext"), got("no-alpn")), ("accepted", "not-terminated"));
                assert_eq!((got("wrong-ca"), got("right-identity")), ("refused", "accepted"));
            }
            _ => assert_eq!((got("plaintext"), got("right-identity")), ("accepted", "not-terminated")),
        }
        // The same from the configuration and from the sidecar itself.
        let by_config =
            verify(listen, &["-c", config.to_str().unwrap(), "--only", "plaintext,no-certificate,right-identity"]);
        assert_eq!(by_config.code, Some(0), "{mode}: {}{}", by_config.out, by_config.err);
        let admin = format!("http://{}", cart.admin);
        let asked = verify(listen, &["--admin", &admin, "-p", "8080", "--only", "plaintext,no-certificate"]);
        assert_eq!((asked.code, &asked.json()["mode"]), (Some(0), &Value::from(mode)), "{}", asked.out);
    }
}

#[test]
fn a_port_in_another_mode_than_the_policy_says_is_a_finding() {
    let mesh = Mesh::new("PERMISSIVE");
    let (_cart, listen) = mesh.cart(http_app(), |_| ());
    let web = files(&mesh.path().join("web"));
    let ran = verify(listen, &with_credentials(&web, &["--mode", "STRICT"]));
    let rows = rows(&ran);
    assert_eq!((ran.code, rows["plaintext"].1.as_str()), (Some(1), "WRONG"), "{}", ran.out);
    assert_eq!(rows["wrong-ca"].1, "ok");
    let table = run(&["verify", &listen.to_string(), "--mode", "STRICT", "--only", "plaintext", "--timeout", TIMEOUT]);
    assert!(
        table.out.contains("plaintext   refused    accepted   WRONG     the app answers: \"HTTP/1.1 200 OK\""),
        "{}",
        table.out
    );
}

#[test]
fn without_credentials_a_strict_port_is_still_proven_closed() {
    let mesh = Mesh::new("STRICT");
    let (_cart, listen) = mesh.cart(http_app(), |_| ());
    let ran = verify(listen, &["--mode", "STRICT", "--identity", CART]);
    let rows = rows(&ran);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert_eq!(rows["right-identity"], ("not-tried".to_owned(), "skipped".to_owned()));
    assert_eq!((rows["plaintext"].0.as_str(), rows["no-alpn"].0.as_str()), ("refused", "refused"));
    let other = verify(listen, &["--mode", "STRICT", "--identity", WEB, "--only", "no-certificate"]);
    assert_eq!((other.code, other.json()["items"][0]["got"].as_str()), (Some(1), Some(CART)), "{}", other.out);
}

#[test]
fn an_answer_in_words_and_a_denial_by_an_authorization_policy_are_refusals() {
    let mesh = Mesh::new("STRICT");
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no-web, namespace: shop}\n\
                spec: {action: DENY, rules: [{from: [{source: {principals: [\"cluster.local/ns/shop/sa/web\"]}}]}]}\n";
    fs::write(mesh.path().join("policies/deny.yaml"), deny).unwrap();
    let app = http_app();
    let listen = free_address();
    let body = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\npolicies: policies\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         inbound: {{httpHint: true, ports: [{{listen: \"{listen}\", port: 8080, app: \"{app}\"}}]}}\n"
    );
    let _cart = mesh.start("cart", &body, |_| ());
    let config = mesh.path().join("cart.yaml");
    let config = config.to_str().unwrap();
    // The cart may call itself, so that the app's answer is known.
    let hint = verify(listen, &["-c", config]);
    let rows_of_hint = rows(&hint);
    assert_eq!((hint.code, rows_of_hint["plaintext"].0.as_str()), (Some(0), "refused"), "{}", hint.out);
    // The web may not. An app that closes would look the same.
    let web = files(&mesh.path().join("web"));
    let denied = verify(listen, &with_credentials(&web, &["-c", config, "--only", "right-identity"]));
    assert_eq!(rows(&denied)["right-identity"], ("unclear".to_owned(), "UNPROVEN".to_owned()), "{}", denied.out);
}

#[test]
fn the_ca_s_own_key_leaves_each_certificate_one_fault() {
    let mesh = Mesh::new("STRICT");
    let (_cart, listen) = mesh.cart(http_app(), |_| ());
    fs::write(mesh.path().join("root.pem"), mesh.authority.bundle_pem()).unwrap();
    fs::write(mesh.path().join("root-key.pem"), mesh.authority.key_pem()).unwrap();
    let file = |name: &str| mesh.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("root.pem"), file("root-key.pem"));
    let web = files(&mesh.path().join("web"));
    let more =
        ["--mode", "STRICT", "--ca-cert", &cert, "--ca-key", &key, "--only", "right-identity,expired,wrong-identity"];
    let ran = verify(listen, &with_credentials(&web, &more));
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    let seen = |index: usize| ran.json()["items"][index]["seen"].as_str().unwrap().to_owned();
    assert!(seen(2).contains("alert certificate_expired"), "{}", ran.out);
    assert_eq!(rows(&ran)["wrong-identity"].0, "refused");
}

#[test]
fn a_server_that_accepts_everything_fails() {
    let authority = Authority::root("cluster.local");
    let config = RawPeer::presenting(&authority.workload(CART)).server();
    let server = app(move |mut stream| {
        let mut first = [0];
        let is_tls = stream.peek(&mut first).is_ok_and(|count| count == 1 && first[0] == 0x16);
        if is_tls {
            return answer(tls_server(stream, config.clone()));
        }
        answer(&mut stream);
    });
    let folder = tempfile::tempdir().unwrap();
    for (file, content) in identity_files(&authority, &authority.workload(WEB)) {
        fs::write(folder.path().join(file), content).unwrap();
    }
    let web = files(folder.path());
    let ran = verify(server, &with_credentials(&web, &["--mode", "STRICT"]));
    let rows = rows(&ran);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    let broken = ["plaintext", "no-certificate", "wrong-ca", "expired", "wrong-identity", "tls1.2", "resumption"];
    for attempt in broken {
        assert_eq!(rows[attempt], ("accepted".to_owned(), "WRONG".to_owned()), "{attempt}: {}", ran.out);
    }
    for attempt in ["right-identity", "tls1.1", "tls1.0", "early-data"] {
        assert_eq!(rows[attempt].1, "ok", "{attempt}: {}", ran.out);
    }
}

fn answer(mut stream: impl Read + Write) {
    let mut buffer = [0; 512];
    if stream.read(&mut buffer).is_ok_and(|count| count > 0) {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").and_then(|()| stream.flush());
        // What follows, such as our end, is read so that the answer is not lost to a reset.
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }
}

#[test]
fn early_data_that_is_taken_is_a_finding() {
    let authority = Authority::root("cluster.local");
    let mut config = RawPeer::presenting(&authority.workload(CART)).server();
    config.max_early_data_size = 1024;
    let server = app(move |stream| {
        let mut tls = tls_server(stream, config.clone());
        while tls.conn.is_handshaking() {
            if tls.conn.complete_io(&mut tls.sock).is_err() {
                return;
            }
            let mut early = Vec::new();
            if let Some(mut data) = tls.conn.early_data() {
                let _all = data.read_to_end(&mut early);
            }
            if !early.is_empty() {
                let _gone = tls.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            }
        }
        answer(tls);
    });
    let ran = verify(server, &["--mode", "STRICT", "--only", "early-data"]);
    assert_eq!(rows(&ran)["early-data"], ("accepted".to_owned(), "WRONG".to_owned()), "{}", ran.out);
}

#[test]
fn an_app_that_closes_without_a_word_proves_nothing() {
    let silent = app(|mut stream| {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            request.extend(byte);
        }
    });
    let ran = verify(silent, &["--mode", "STRICT", "--only", "plaintext"]);
    assert_eq!((ran.code, rows(&ran)["plaintext"].1.as_str()), (Some(1), "UNPROVEN"), "{}", ran.out);
}

#[test]
fn a_run_is_bounded_and_an_unreachable_port_has_its_own_code() {
    // It accepts, and never says anything.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (begun, address) = (Instant::now(), listener.local_addr().unwrap().to_string());
    let ran = run(&["verify", &address, "--mode", "STRICT", "--timeout", "200ms"]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(listener);
    let gone = run(&["verify", &address, "--mode", "STRICT"]);
    assert_eq!((gone.code, gone.out.as_str()), (Some(69), ""), "{}", gone.err);
    assert!(gone.err.contains("cannot connect to"), "{}", gone.err);
    assert_eq!(run(&["verify", "no.such.name.invalid:1", "--mode", "STRICT"]).code, Some(69));
    assert_eq!(run(&["verify", &address]).code, Some(64));
    assert_eq!(run(&["verify", &address, "--mode", "STRICT", "--only", "nonsense"]).code, Some(64));
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("cert.pem");
    fs::write(&wrong, "no certificate").unwrap();
    let wrong = wrong.to_str().unwrap();
    assert_eq!(run(&["verify", &address, "--mode", "STRICT", "--cert", wrong, "--key", wrong]).code, Some(65));
}

#[test]
fn the_result_is_a_file_that_ci_systems_read() {
    let mesh = Mesh::new("PERMISSIVE");
    let (_cart, listen) = mesh.cart(http_app(), |_| ());
    let only = "plaintext,no-certificate,right-identity";
    let ran =
        run(&["verify", &listen.to_string(), "--mode", "STRICT", "--only", only, "--timeout", TIMEOUT, "-o", "junit"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>"), "{}", ran.out);
    assert!(ran.out.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{}", ran.out);
    assert!(
        ran.out.contains(
            "<failure message=\"expected refused, got accepted: the app answers: &quot;HTTP/1.1 200 OK&quot;"
        )
    );
    let parsed = Command::new("python3")
        .args(["-c", "import sys, xml.dom.minidom as x; print(len(x.parseString(sys.stdin.read()).getElementsByTagName('testcase')))"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut parsed = parsed.unwrap();
    parsed.stdin.take().unwrap().write_all(ran.out.as_bytes()).unwrap();
    assert_eq!(parsed.wait_with_output().unwrap().stdout, b"3\n");
}

/// A real `openssl s_server`, killed when dropped.
struct Openssl {
    child: Child,
    address: SocketAddr,
}

impl Openssl {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let address = free_address();
        let child = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                &address.to_string(),
                "-cert",
                "cert.pem",
                "-key",
                "key.pem",
                "-www",
                "-quiet",
            ])
            .args(more)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Self { child: child.unwrap(), address };
        eventually("openssl listens", || TcpStream::connect(address).ok());
        server
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A folder with a server's certificate, and one with the client's.
fn openssl_files(authority: &Authority) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let client = folder.path().join("web");
    fs::create_dir(&client).unwrap();
    for (path, id) in [(folder.path(), CART), (client.as_path(), WEB)] {
        for (file, content) in identity_files(authority, &authority.issue(&Profile::leaf(id))) {
            fs::write(path.join(file), content).unwrap();
        }
    }
    (folder, client)
}

#[test]
fn openssl_that_demands_certificates_is_as_strict_as_it_is_configured() {
    let authority = Authority::root("cluster.local");
    let (folder, client) = openssl_files(&authority);
    let web = files(&client);
    let strict = ["-Verify", "3", "-verify_return_error", "-CAfile", "ca.pem", "-tls1_3", "-num_tickets", "0"];
    let server = Openssl::start(folder.path(), &strict);
    let ran = verify(server.address, &with_credentials(&web, &["--mode", "STRICT"]));
    let got = rows(&ran);
    for attempt in
        ["no-certificate", "wrong-ca", "expired", "wrong-identity", "tls1.2", "tls1.1", "tls1.0", "early-data"]
    {
        assert_eq!(got[attempt].0, "refused", "{attempt}: {}", ran.out);
    }
    assert_eq!((got["right-identity"].0.as_str(), got["plaintext"].0.as_str()), ("accepted", "refused"), "{}", ran.out);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    drop(server);
    // One that asks and does not insist, speaks TLS 1.2, and resumes.
    let server = Openssl::start(folder.path(), &["-verify", "3", "-CAfile", "ca.pem"]);
    let ran = verify(server.address, &with_credentials(&web, &["--mode", "STRICT"]));
    let got = rows(&ran);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    for attempt in ["no-certificate", "tls1.2", "resumption"] {
        assert_eq!(got[attempt], ("accepted".to_owned(), "WRONG".to_owned()), "{attempt}: {}", ran.out);
    }
}
