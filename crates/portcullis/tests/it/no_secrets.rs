//! At the most verbose log level, and with every mistake in handling keys, no output of a sidecar contains part of a key, of
//! a TLS secret or of a connection's payload.

use std::fmt::Debug;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use portcullis_testkit::certs::{Authority, Issued};
use portcullis_testkit::{Key, KeyKind};
use rustls::{ClientConfig, KeyLog};

use crate::support::raw::{Mesh, dial, read_all, tls_client};
use crate::support::{App, BIN, CART, Sidecar, WEB, ask, eventually, passed};

/// What connections carry, in the clear, within TLS, and in broken openings.
const PAYLOAD: &str = "Xq7-the-password-is-Vb3kLw9z";
/// What a key file holds that is no key.
const IN_A_KEY_FILE: &str = "uN4mT8hunter2sR6wE1";

/// A secret in one of the forms in which programs print bytes.
struct Needle {
    what: String,
    form: Vec<u8>,
}

fn needles(what: &str, secret: &[u8]) -> Vec<Needle> {
    assert!(secret.len() >= 16, "{what}: too short to be found by chance");
    let hex = |separator: &str, upper: bool| {
        let digits = secret.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") });
        digits.collect::<Vec<_>>().join(separator)
    };
    let list = |separator| secret.iter().map(u8::to_string).collect::<Vec<_>>().join(separator);
    let debug = format!("{:?}", String::from_utf8_lossy(secret));
    let mut forms = vec![
        secret.to_vec(),
        hex("", false).into(),
        hex("", true).into(),
        hex(":", false).into(),
        hex(" ", false).into(),
        list(", ").into(),
        list(",").into(),
        secret.escape_ascii().to_string().into(),
        debug.trim_matches('"').into(),
    ];
    forms.extend((0..3).map(|skip| base64(&secret[skip..]).into()));
    forms.into_iter().map(|form| Needle { what: what.to_owned(), form }).collect()
}

/// Only the part that does not depend on what follows.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks_exact(3).flat_map(|three| {
        let bits = three.iter().fold(0_usize, |bits, &byte| bits << 8 | usize::from(byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]))
    });
    digits.collect()
}

fn contains(text: &[u8], form: &[u8]) -> bool {
    text.windows(form.len()).any(|window| window == form)
}

/// The private half of a key: each line of its PEM body, and the number itself.
fn key_needles(what: &str, pem: &str, key: &Key) -> Vec<Needle> {
    let mut all = pem_needles(what, pem);
    let der = key.der();
    let der = der.secret_der();
    // RFC 5915: version 1, then the number as 32 octets.
    let start = der.windows(5).position(|window| window == [2, 1, 1, 4, 32]).unwrap() + 5;
    all.extend(needles(what, &der[start..start + 32]));
    all
}

/// Each line of a PEM file but the marks and a short last one.
fn pem_needles(what: &str, pem: &str) -> Vec<Needle> {
    let body: Vec<_> = pem.lines().filter(|line| !line.starts_with("-----") && line.len() >= 16).collect();
    assert!(body.len() >= 3, "{pem}");
    body.iter().flat_map(|line| needles(&format!("{what}, a line of PEM"), line.as_bytes())).collect()
}

/// Keeps what rustls would write into SSLKEYLOGFILE.
#[derive(Debug, Default)]
struct Secrets(Mutex<Vec<(String, Vec<u8>)>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push((label.to_owned(), secret.to_vec()));
    }
}

fn most_verbose(folder: &Path, name: &str, json: bool) -> impl FnOnce(&mut Command) {
    let (errors, secrets) = (fs::File::create(folder.join(format!("{name}.err"))).unwrap(), folder.join("sslkeylog"));
    move |command| {
        command.args(["--log-level", "trace"]).stderr(errors);
        if !json {
            command.args(["--log-format", "text"]);
        }
        for (name, value) in [("RUST_LOG", "trace"), ("PORTCULLIS_LOG", "trace"), ("RUST_BACKTRACE", "full")] {
            command.env(name, value);
        }
        command.env("SSLKEYLOGFILE", secrets);
    }
}

#[test]
fn no_secret_in_logs_at_trace() {
    thread::scope(|scope| [true, false].map(|json| drop(scope.spawn(move || nothing_is_told(json)))));
}

fn nothing_is_told(json: bool) {
    let mesh = Mesh::new("STRICT");
    let root = mesh.path().to_owned();
    let mut needles = [("cart", CART), ("web", WEB)]
        .map(|(name, id)| own_key(&mesh, name, id))
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    let app = App::start();
    let (cart, inbound) = mesh.cart(app.address, most_verbose(&root, "cart", json));
    let (web, outbound) = mesh.web(inbound, most_verbose(&root, "web", json));

    assert!(passed(outbound, PAYLOAD.as_bytes()), "{}", cart.read_log());
    needles.extend(talk(&mesh, inbound));
    needles.extend(mistakes(&mesh, &cart));
    assert!(passed(outbound, PAYLOAD.as_bytes()), "the last good credentials");
    needles.extend(self::needles("payload", PAYLOAD.as_bytes()));
    needles.extend(self::needles("what a key file held", IN_A_KEY_FILE.as_bytes()));
    for label in ["TRAFFIC_SECRET", "EXPORTER_SECRET", "CLIENT_RANDOM", "PRIVATE KEY-----"] {
        needles.push(Needle { what: "label of a secret".to_owned(), form: label.into() });
    }

    let mut said = [&cart, &web].map(|sidecar| sidecar.get("/stats/prometheus").unwrap()).concat().into_bytes();
    said.extend(bad_start(&root));
    for sidecar in [cart, web] {
        eventually("all lines", || sidecar.read_log().contains("connection complete").then_some(()));
        said.extend(fs::read(&sidecar.log).unwrap());
    }
    said.extend(["cart.err", "web.err"].map(|name| fs::read(root.join(name)).unwrap()).concat());
    for expected in ["connection complete", "connection refused", "kept the last good files in force", "unknown_ca"] {
        assert!(contains(&said, expected.as_bytes()), "nothing was said of {expected}");
    }
    let found: Vec<_> = needles.iter().filter(|needle| contains(&said, &needle.form)).collect();
    let found: Vec<_> = found.iter().map(|n| format!("{}: {}", n.what, n.form.escape_ascii())).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(!root.join("sslkeylog").exists(), "secrets of TLS were written to a file");
    println!("{} forms of secrets looked for in {} bytes", needles.len(), said.len());
}

/// Gives a workload a key that is known to the test.
fn own_key(mesh: &Mesh, name: &str, id: &str) -> Vec<Needle> {
    let issued = mesh.authority.workload(id);
    fs::write(mesh.path().join(name).join("cert.pem"), issued.cert_pem()).unwrap();
    fs::write(mesh.path().join(name).join("key.pem"), issued.key_pem()).unwrap();
    key_needles(&format!("key of {name}"), &issued.key_pem(), &issued.key)
}

/// Connections of every kind straight to the inbound port; the secrets of those that had any.
fn talk(mesh: &Mesh, inbound: std::net::SocketAddr) -> Vec<Needle> {
    let secrets = Arc::<Secrets>::default();
    let with_secrets = |mut config: ClientConfig| {
        config.key_log = Arc::<Secrets>::clone(&secrets);
        config
    };
    let stranger = Authority::root("stranger.test").workload(WEB);
    let stranger = portcullis_testkit::RawPeer::presenting(&stranger);
    for (config, good) in [(mesh.client().client(), true), (stranger.client(), false)] {
        let mut client = tls_client(dial(inbound), with_secrets(config));
        let _refused = client.write_all(PAYLOAD.as_bytes());
        client.conn.send_close_notify();
        let _refused = client.flush();
        let (answer, error) = read_all(&mut client);
        assert_eq!((answer.ends_with(PAYLOAD.as_bytes()), error.is_none()), (good, good));
    }
    for opening in [PAYLOAD.to_owned(), format!("\x16{PAYLOAD}"), format!("\x16\x03\x01\x00\x20{PAYLOAD}{PAYLOAD}")] {
        let _refused = ask(inbound, opening.as_bytes());
    }
    let secrets = std::mem::take(&mut *secrets.0.lock().unwrap());
    assert!(secrets.len() >= 10, "{secrets:?}");
    secrets.iter().flat_map(|(label, secret)| needles(label, secret)).collect()
}

/// Mistakes in copying keys while the sidecar runs; each is reported, and no report contains the key.
fn mistakes(mesh: &Mesh, cart: &Sidecar) -> Vec<Needle> {
    let folder = mesh.path().join("cart");
    let file = |name: &str| folder.join(name);
    let good = ["cert.pem", "key.pem", "ca.pem"].map(|name| (name, fs::read(file(name)).unwrap()));
    let other: Issued = mesh.authority.workload(CART);
    let (pem, p384) = (other.key_pem(), Key::new(KeyKind::P384).pem());
    let half: String = pem.chars().take(pem.len() / 2).collect();
    let no_key = format!("-----BEGIN PRIVATE KEY-----\n{IN_A_KEY_FILE}\n-----END PRIVATE KEY-----\n");
    let not_base64 = format!("-----BEGIN PRIVATE KEY-----\n{{{IN_A_KEY_FILE}}}\n-----END PRIVATE KEY-----\n");
    for (name, content) in [
        ("key.pem", pem.as_str()),
        ("key.pem", &p384),
        ("key.pem", &half),
        ("key.pem", &no_key),
        ("key.pem", &not_base64),
        ("key.pem", IN_A_KEY_FILE),
        ("cert.pem", &pem),
        ("ca.pem", &pem),
    ] {
        let (_, repaired) = good.iter().find(|(good, _)| *good == name).unwrap();
        // What was refused is loaded anew when it is mended; what could not be read at all is just good again.
        let mended: &[&str] = &["\"reloaded\"", ": reloaded", "the files are good again"];
        for (content, expected) in
            [(content.as_bytes(), &["kept the last good files in force"] as &[&str]), (repaired.as_slice(), mended)]
        {
            let log = || cart.read_log();
            let times = || expected.iter().map(|text| log().matches(text).count()).sum::<usize>();
            let before = times();
            fs::write(file(name), content).unwrap();
            eventually(&format!("{name}: one of {expected:?}"), || (times() > before).then_some(()));
        }
    }
    let mut all = key_needles("another key", &pem, &other.key);
    all.extend(pem_needles("a key of another kind", &p384));
    all
}

/// A sidecar that does not start for its key's sake, and all that it says.
fn bad_start(root: &Path) -> Vec<u8> {
    let no_key = format!("-----BEGIN PRIVATE KEY-----\n{IN_A_KEY_FILE}\n-----END PRIVATE KEY-----\n");
    fs::write(root.join("no-key.pem"), no_key).unwrap();
    let mut said = Vec::new();
    for (certificate, key) in
        [("cart/cert.pem", "web/key.pem"), ("cart/key.pem", "cart/key.pem"), ("cart/cert.pem", "no-key.pem")]
    {
        let config = format!(
            "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
             identity: {{files: {{certificate: {certificate}, privateKey: {key}, trustBundle: cart/ca.pem}}}}\n"
        );
        fs::write(root.join("bad.yaml"), config).unwrap();
        let Output { status, stdout, stderr } = Command::new(BIN)
            .args(["proxy", "--log-level", "trace", "--config", root.join("bad.yaml").to_str().unwrap()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(status.code(), Some(65));
        assert!(!stderr.is_empty());
        said.extend([stdout, stderr].concat());
    }
    said
}

/// The search itself: it finds a secret in every form in which it may be printed.
#[test]
fn the_search_finds_what_is_printed() {
    let secret: Vec<u8> = (0..32_u8).map(|n| n.wrapping_mul(37).wrapping_add(200)).collect();
    let needles = needles("secret", &secret);
    let shown = |text: &dyn Debug| format!("{text:?}").into_bytes();
    let base64 = portcullis_testkit::openssl(["base64", "-A"], &[b"x", secret.as_slice(), b"yz"].concat());
    for printed in [
        shown(&secret),
        [b"key=", secret.as_slice(), b"."].concat(),
        secret.escape_ascii().to_string().into_bytes(),
        secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes(),
        secret.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes(),
        shown(&String::from_utf8_lossy(&secret)),
        base64,
    ] {
        let hits = needles.iter().filter(|needle| contains(&printed, &needle.form)).count();
        assert!(hits > 0, "{}", printed.escape_ascii());
    }
    assert!(!needles.iter().any(|needle| contains(b"nothing of it", &needle.form)));
}
