//! One sidecar with a port for each case, an app behind each port, and all cases at once, since some last as
//! long as the deadline.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::{Authority, Issued};
use rustls::AlertDescription;
use serde_json::Value;

use super::client::{Answer, Fin, Opening, PAYLOAD, Talk, talk};
use crate::support::{CART, Sidecar, WEB, free_address};

/// From accept to authorised, the product's default.
const DEADLINE: Duration = Duration::from_secs(10);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);
/// What an app says that speaks first.
const GREETING: &[u8] = b"220 welcome\r\n";
const POLICY: &str = "shop/cart";
pub(crate) const ALIAS: &str = "spiffe://old.local/ns/shop/sa/web";
const FOREIGN: &str = "spiffe://other.test/ns/shop/sa/web";

/// Who a client says it is.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cert {
    Mesh,
    UntrustedCa,
    MeshCaOtherTrustDomain,
    MeshCaAliasTrustDomain,
}

/// What is to become of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The app gets the client's bytes unchanged; the client has no identity.
    Forwarded { transport: &'static str },
    /// TLS ends here; the app gets what was sent within it, from this peer.
    Authenticated { id: &'static str },
    /// Nothing reaches the app.
    Refused { reason: &'static str, transport: &'static str, response: Response, when: When },
}

/// What a refused client receives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Response {
    Nothing,
    Alert(AlertDescription),
    /// An alert or nothing: the answer to bytes that are neither TLS nor a known protocol is not specified.
    Whatever,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    AtOnce,
    AtTheDeadline,
}

/// A connection to a port of that mode, and what is to become of it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) mode: &'static str,
    /// The app speaks first.
    pub(crate) greets: bool,
    /// The port is configured as one whose server speaks first.
    pub(crate) server_first: bool,
    pub(crate) opening: Opening,
    pub(crate) verdict: Verdict,
}

/// Certificates of every kind, made once.
pub(crate) struct Mesh {
    authority: Authority,
    certificates: BTreeMap<&'static str, Issued>,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let authority = Authority::root("cluster.local");
        // Its name differs from ours: a CA of the same name is reported as a bad signature, not as an unknown CA.
        let stranger = Authority::root("stranger.test");
        let certificates = BTreeMap::from([
            ("mesh", authority.workload(WEB)),
            ("untrusted", stranger.workload(WEB)),
            ("foreign", authority.workload(FOREIGN)),
            ("alias", authority.workload(ALIAS)),
        ]);
        Self { authority, certificates }
    }

    /// A client with that certificate, or none, and these names.
    pub(crate) fn client(&self, cert: Option<Cert>, alpn: &[String]) -> RawPeer {
        let name = match cert {
            None => None,
            Some(Cert::Mesh) => Some("mesh"),
            Some(Cert::UntrustedCa) => Some("untrusted"),
            Some(Cert::MeshCaOtherTrustDomain) => Some("foreign"),
            Some(Cert::MeshCaAliasTrustDomain) => Some("alias"),
        };
        let peer = name.map_or_else(RawPeer::anonymous, |name| RawPeer::presenting(&self.certificates[name]));
        peer.with_alpn(&alpn.iter().map(String::as_bytes).collect::<Vec<_>>())
    }
}

/// An app that answers `app:`, then every byte back, then `:end` when the client has ended.
struct Echo {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Echo {
    fn start(greets: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let seen = Arc::clone(&connections);
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                seen.lock().unwrap().push(Vec::new());
                let seen = Arc::clone(&seen);
                thread::spawn(move || {
                    serve(stream.unwrap(), greets, |bytes| seen.lock().unwrap()[index].extend(bytes))
                });
            }
        });
        Self { address, connections }
    }

    fn seen(&self) -> Vec<Vec<u8>> {
        self.connections.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, greets: bool, mut note: impl FnMut(&[u8])) {
    if greets {
        let _gone = stream.write_all(GREETING);
    }
    let mut buffer = vec![0; 65_536];
    let mut said: &[u8] = b"app:";
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                note(&buffer[..count]);
                let _gone = stream.write_all(&[said, &buffer[..count]].concat());
                said = b"";
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_reset) => return,
        }
    }
    let _gone = stream.write_all(b":end");
}

/// What the client should read when the app got `bytes`.
fn answer_to(bytes: &[u8], greets: bool) -> Vec<u8> {
    let greeting: &[u8] = if greets { GREETING } else { b"" };
    let echoed = if bytes.is_empty() { Vec::new() } else { [b"app:", bytes].concat() };
    [greeting, &echoed, b":end"].concat()
}

/// Plays all cases; the differences, each with the id of its case.
pub(crate) fn play(mesh: &Mesh, cases: &[Case]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let apps: Vec<_> = cases.iter().map(|case| Echo::start(case.greets)).collect();
    let listeners: Vec<_> = cases.iter().map(|_| free_address()).collect();
    write_files(folder.path(), mesh, cases);
    let cart = Sidecar::start_with(folder.path(), "cart", &configuration(cases, &apps, &listeners), |command| {
        // Many cases are refused for one reason, and each is looked for in the log.
        command.args(["--log-format", "json", "--log-level", "info,access=debug"]);
    });
    let mut failures: Vec<String> = thread::scope(|scope| {
        let played: Vec<_> = cases
            .iter()
            .enumerate()
            .map(|(index, case)| {
                let (cart, app, listen) = (&cart, &apps[index], listeners[index]);
                scope.spawn(move || {
                    let talk = talk(listen, &case.opening);
                    let line = cart.access_of(talk.address, listen);
                    let found = differences(case, port(index), &talk, &line, &app.seen());
                    found.into_iter().map(|found| format!("{}: {found}", case.id)).collect::<Vec<_>>()
                })
            })
            .collect();
        played.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    // Once more when all is over, for what an app may have got late.
    for (case, app) in cases.iter().zip(&apps) {
        let seen = app.seen();
        let (connections, bytes) = (seen.len(), seen.concat());
        match case.verdict {
            Verdict::Refused { .. } if !bytes.is_empty() => {
                failures.push(format!("{}: the app got {}", case.id, bytes.escape_ascii()));
            }
            // Refused before any handshake: not even a connection. (After one, the app may have been dialled.)
            Verdict::Refused { response: Response::Nothing, .. } if connections != 0 => {
                failures.push(format!("{}: the app was dialled", case.id));
            }
            Verdict::Forwarded { .. } | Verdict::Authenticated { .. } if connections != 1 => {
                failures.push(format!("{}: the app was dialled {connections} times", case.id));
            }
            _ => {}
        }
    }
    let lines = cart.access().len();
    if lines != cases.len() {
        failures.push(format!("{lines} access lines for {} connections", cases.len()));
    }
    failures
}

fn differences(case: &Case, port: u16, talk: &Talk, line: &Value, app: &[Vec<u8>]) -> Vec<String> {
    let reached: &[u8] = match case.verdict {
        Verdict::Forwarded { .. } => &talk.opening,
        Verdict::Authenticated { .. } => PAYLOAD,
        Verdict::Refused { .. } => b"",
    };
    let answer = match (&case.verdict, &talk.answer) {
        (Verdict::Forwarded { .. }, _) => Answer::Raw(answer_to(reached, case.greets)),
        (Verdict::Authenticated { .. }, _) => Answer::Secured(answer_to(reached, case.greets)),
        (Verdict::Refused { response: Response::Alert(alert), .. }, _)
        | (Verdict::Refused { response: Response::Whatever, .. }, Answer::Alert(alert)) => Answer::Alert(*alert),
        (Verdict::Refused { response: Response::Nothing | Response::Whatever, .. }, _) => Answer::Nothing,
    };
    let mut found = Vec::new();
    if talk.answer != answer {
        found.push(format!("the client got {:?}, not {answer:?}", talk.answer));
    }
    if app.concat() != reached {
        found.push(format!("the app got {}, not {}", app.concat().escape_ascii(), reached.escape_ascii()));
    }
    let on_time = match case.verdict {
        Verdict::Refused { when: When::AtTheDeadline, .. } => DEADLINE..DEADLINE + SLACK,
        _ => Duration::ZERO..DEADLINE - Duration::from_secs(1),
    };
    if !on_time.contains(&talk.took) {
        found.push(format!("it took {:?}, not {on_time:?}", talk.took));
    }
    found.extend(line_differences(case, port, reached.len(), line));
    found
}

/// Compares the access line, field by field; a field without a value must be absent.
fn line_differences(case: &Case, port: u16, reached: usize, line: &Value) -> Vec<String> {
    let (decision, reason, transport, peer) = match case.verdict {
        Verdict::Forwarded { transport } => ("allow", "-", transport, None),
        Verdict::Authenticated { id } => ("allow", "-", "mtls", Some(id)),
        Verdict::Refused { reason, transport, .. } => ("deny", reason, transport, None),
    };
    let answered = if decision == "allow" {
        let answer = if reached == 0 { ":end".len() } else { "app:".len() + reached + ":end".len() };
        answer + if case.greets { GREETING.len() } else { 0 }
    } else {
        0
    };
    let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    let wanted = [
        ("direction", Value::from("inbound")),
        ("port", Value::from(port)),
        ("mode", Value::from(case.mode)),
        ("policy", Value::from(POLICY)),
        ("decision", Value::from(decision)),
        ("reason", Value::from(reason)),
        ("transport", Value::from(transport)),
        ("src.identity", text(peer)),
        ("dst.identity", text(peer.map(|_| CART))),
        ("tls.version", text(peer.map(|_| "TLSv1.3"))),
        ("bytes_recv", Value::from(reached)),
        ("bytes_sent", Value::from(answered)),
    ];
    let mut found: Vec<String> = wanted
        .into_iter()
        .filter(|(field, value)| line[*field] != *value)
        .map(|(field, value)| format!("the log has {field} {}, not {value}", line[field]))
        .collect();
    let hint = line["hint"].as_str().unwrap_or_default();
    if hint.is_empty() != (reason == "-") || (reason == "silent_client" && !hint.contains("server-first")) {
        found.push(format!("the hint is \"{hint}\""));
    }
    found
}

fn port(index: usize) -> u16 {
    20_000 + u16::try_from(index).unwrap()
}

fn write_files(root: &Path, mesh: &Mesh, cases: &[Case]) {
    fs::create_dir(root.join("policies")).unwrap();
    let modes: String = cases
        .iter()
        .enumerate()
        .map(|(index, case)| format!("    {}: {{mode: {}}}\n", port(index), case.mode))
        .collect();
    let policy = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: cart, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: cart}}}}\n  mtls: {{mode: STRICT}}\n  portLevelMtls:\n{modes}"
    );
    fs::write(root.join("policies/cart.yaml"), policy).unwrap();
    let own = mesh.authority.workload(CART);
    fs::write(root.join("cert.pem"), own.cert_pem()).unwrap();
    fs::write(root.join("key.pem"), own.key_pem()).unwrap();
    fs::write(root.join("ca.pem"), mesh.authority.bundle_pem()).unwrap();
}

fn configuration(cases: &[Case], apps: &[Echo], listeners: &[SocketAddr]) -> String {
    let ports: String = cases
        .iter()
        .enumerate()
        .map(|(index, case)| {
            let protocol = if case.server_first { "server-first" } else { "auto" };
            let (listen, app, port) = (listeners[index], apps[index].address, port(index));
            format!("  - {{listen: \"{listen}\", port: {port}, app: \"{app}\", protocol: {protocol}}}\n")
        })
        .collect();
    format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart, labels: {{app: cart}}}}\n\
         mesh: {{trustDomainAliases: [old.local]}}\n\
         policies: policies\n\
         identity: {{files: {{certificate: cert.pem, privateKey: key.pem, trustBundle: ca.pem}}}}\n\
         inbound:\n  ports:\n{ports}"
    )
}

/// Bytes in one piece, and an end when an answer is there.
pub(crate) fn bytes(bytes: impl Into<Vec<u8>>) -> Opening {
    Opening::Bytes(vec![bytes.into()], Fin::Later)
}

/// Nothing at all.
pub(crate) fn silence() -> Opening {
    Opening::Bytes(Vec::new(), Fin::Later)
}
