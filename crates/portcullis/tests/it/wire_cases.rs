//! How an inbound port handles the first bytes of a client, end to end: every `wire` row of the case file, the whole table of
//! modes and openings, and many more openings.
//!
//! Each connection checks what the client got, exactly which bytes the app got, and the access log line:
//! mode, policy, decision, reason, transport, the identity or that there is none. A comment explains each difference
//! from the case file.

use std::time::Duration;

use portcullis_testkit::RawPeer;
use rustls::AlertDescription;
use serde::Deserialize;

use crate::support::WEB;
use crate::wire::client::{Cut, Fin, Opening, hello, in_records, tls11_hello};
use crate::wire::stage::{ALIAS, Case, Cert, Mesh, Response, Verdict, When, bytes, play, silence};

const DATA: &str = include_str!("../../../policy/tests/data/peerauth-cases.yaml");
/// A change of the file must be noticed here.
const ROWS: usize = 24;

/// One row. Whatever is not named here fails the test: a field, a kind of client, an outcome.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    mode: Mode,
    client: Client,
    outcome: Outcome,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "note")]
    _note: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
enum Mode {
    Strict,
    Permissive,
    Disable,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Client {
    Plaintext {
        speaks_first: bool,
    },
    Tls {
        // Without this an absent field would be taken for "no certificate".
        #[serde(deserialize_with = "Option::deserialize")]
        client_cert: Option<Cert>,
        alpn: Vec<String>,
        max_version: Option<MaxVersion>,
        #[serde(default)]
        fragmented: bool,
    },
    Bytes {
        first: First,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum MaxVersion {
    #[serde(rename = "1.1")]
    Tls11,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum First {
    #[serde(rename = "0x16 then non-TLS")]
    HandshakeByteThenText,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Reject,
    ForwardRaw,
    ForwardPlaintext,
    WaitThenNothing,
    TerminateAuthenticated,
    RejectHandshake,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        }
    }
}

fn rows() -> Vec<Row> {
    let all: serde_yaml::Value = serde_yaml::from_str(DATA).unwrap();
    let rows = all["wire"].as_sequence().unwrap();
    let read = |row: &serde_yaml::Value| {
        serde_yaml::from_value(row.clone()).unwrap_or_else(|error| panic!("{:?}: {error}", row["id"]))
    };
    rows.iter().map(read).collect()
}

fn case(mesh: &Mesh, row: &Row) -> Case {
    let opening = match &row.client {
        Client::Plaintext { speaks_first: true } => bytes("SELECT 1;\n"),
        Client::Plaintext { speaks_first: false } => silence(),
        Client::Tls { max_version: Some(MaxVersion::Tls11), alpn, fragmented: false, client_cert: Some(_) } => {
            bytes(tls11_hello(alpn))
        }
        Client::Tls { max_version: None, client_cert, alpn, fragmented } => {
            Opening::Tls(mesh.client(*client_cert, alpn), if *fragmented { Cut::Bytes } else { Cut::Whole })
        }
        Client::Tls { max_version: Some(MaxVersion::Tls11), .. } => panic!("{}: no such client of TLS 1.1", row.id),
        Client::Bytes { first: First::HandshakeByteThenText } => bytes("\x16GET / HTTP/1.1\r\n\r\n"),
    };
    let silent = matches!(row.client, Client::Plaintext { speaks_first: false });
    Case {
        id: row.id.clone(),
        mode: row.mode.name(),
        greets: silent,
        server_first: false,
        opening,
        verdict: verdict(row),
    }
}

/// What the row says, and what follows from it for the log.
fn verdict(row: &Row) -> Verdict {
    match (row.outcome, row.mode, &row.client) {
        (Outcome::Reject, Mode::Strict, Client::Plaintext { .. }) => {
            refused("plaintext_in_strict", "plaintext", Response::Nothing)
        }
        (Outcome::ForwardRaw, Mode::Disable, _) => Verdict::Forwarded { transport: "-" },
        (Outcome::ForwardRaw, Mode::Permissive, Client::Tls { .. }) => Verdict::Forwarded { transport: "tls" },
        (Outcome::ForwardPlaintext, Mode::Permissive, Client::Bytes { .. }) => {
            Verdict::Forwarded { transport: "plaintext" }
        }
        // Nothing reaches the app, and it is closed at the deadline.
        (Outcome::WaitThenNothing, Mode::Strict, _) => at_the_deadline("silent_client", "-"),
        (Outcome::TerminateAuthenticated, _, Client::Tls { client_cert, .. }) => match client_cert {
            Some(Cert::Mesh) => Verdict::Authenticated { id: WEB },
            Some(Cert::MeshCaAliasTrustDomain) => Verdict::Authenticated { id: ALIAS },
            other => panic!("{}: {other:?} cannot be authenticated", row.id),
        },
        (Outcome::RejectHandshake, _, Client::Tls { max_version: Some(MaxVersion::Tls11), .. }) => {
            refused("protocol", "tls", TLS11_ALERT)
        }
        (Outcome::RejectHandshake, _, Client::Tls { client_cert, .. }) => refused_certificate(*client_cert),
        (outcome, mode, _) => panic!("{}: {outcome:?} under {mode:?} has no meaning here", row.id),
    }
}

fn refused_certificate(cert: Option<Cert>) -> Verdict {
    let (reason, alert) = match cert {
        None => ("no_certificate", AlertDescription::CertificateRequired),
        Some(Cert::UntrustedCa) => ("unknown_ca", AlertDescription::UnknownCA),
        // Envoy sends certificate_unknown; a foreign trust domain is reported here as an unknown CA.
        Some(Cert::MeshCaOtherTrustDomain) => ("td_mismatch", AlertDescription::UnknownCA),
        Some(good) => panic!("{good:?} is not to be refused"),
    };
    refused(reason, "tls", Response::Alert(alert))
}

const fn refused(reason: &'static str, transport: &'static str, response: Response) -> Verdict {
    Verdict::Refused { reason, transport, response, when: When::AtOnce }
}

const fn at_the_deadline(reason: &'static str, transport: &'static str) -> Verdict {
    Verdict::Refused { reason, transport, response: Response::Nothing, when: When::AtTheDeadline }
}

fn all_pass(mesh: &Mesh, cases: &[Case]) {
    let failures = play(mesh, cases);
    assert!(failures.is_empty(), "{} differences in {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn every_wire_row() {
    let mesh = Mesh::new();
    let cases: Vec<Case> = rows().iter().map(|row| case(&mesh, row)).collect();
    assert_eq!(cases.len(), ROWS, "rows of wire");
    all_pass(&mesh, &cases);
    println!("{} rows of wire, all as they say", cases.len());
}

#[test]
fn what_the_rows_do_not_know_is_an_error() {
    let row = |client: &str| {
        let text = format!("{{id: x, mode: STRICT, client: {client}, outcome: reject, source: x}}");
        serde_yaml::from_str::<Row>(&text).map(|_| ())
    };
    row("{kind: tls, clientCert: null, alpn: []}").unwrap();
    for unknown in [
        "{kind: tls, clientCert: null, alpn: [], sni: x}",
        "{kind: tls, alpn: []}",
        "{kind: tls, clientCert: stolen, alpn: []}",
        "{kind: tls, clientCert: null, alpn: [], maxVersion: '1.0'}",
        "{kind: plaintext, speaksFirst: true, fin: true}",
        "{kind: bytes, first: 0x17}",
        "{kind: quic}",
    ] {
        assert!(row(unknown).is_err(), "{unknown}");
    }
}

/// A client, and what becomes of it under STRICT, PERMISSIVE and DISABLE.
#[derive(Clone)]
struct Line {
    name: &'static str,
    opening: Opening,
    greets: bool,
    verdicts: [Verdict; 3],
}

impl Line {
    fn new(name: &'static str, opening: Opening, [strict, permissive]: [Verdict; 2]) -> Self {
        Self { name, opening, greets: false, verdicts: [strict, permissive, Verdict::Forwarded { transport: "-" }] }
    }

    fn cases(&self) -> impl Iterator<Item = Case> {
        [Mode::Strict, Mode::Permissive, Mode::Disable].into_iter().zip(&self.verdicts).map(|(mode, verdict)| Case {
            id: format!("{} under {}", self.name, mode.name()),
            mode: mode.name(),
            greets: self.greets,
            server_first: false,
            opening: self.opening.clone(),
            verdict: verdict.clone(),
        })
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Envoy sends protocol_version. rustls first rejects the missing signature_algorithms, which TLS before 1.2 does not have.
const TLS11_ALERT: Response = Response::Alert(AlertDescription::HandshakeFailure);
const RAW: Verdict = Verdict::Forwarded { transport: "tls" };
const PLAIN: Verdict = Verdict::Forwarded { transport: "plaintext" };
const MESH: Verdict = Verdict::Authenticated { id: WEB };

/// The table of modes in the README, every cell.
fn table(mesh: &Mesh) -> Vec<Line> {
    let tls = |cert, alpn: &[&str]| Opening::Tls(mesh.client(cert, &names(alpn)), Cut::Whole);
    let plaintext = refused("plaintext_in_strict", "plaintext", Response::Nothing);
    let bad = |cert| refused_certificate(Some(cert));
    let (stranger, foreign) = (Cert::UntrustedCa, Cert::MeshCaOtherTrustDomain);
    let silent = at_the_deadline("silent_client", "-");
    vec![
        Line::new("plaintext", bytes("hello"), [plaintext, PLAIN]),
        Line::new("mesh, mesh name", tls(Some(Cert::Mesh), &["istio"]), [MESH, MESH]),
        Line::new("mesh, no name", tls(Some(Cert::Mesh), &[]), [MESH, RAW]),
        Line::new("the app's own TLS", tls(None, &["h2", "http/1.1"]), [refused_certificate(None), RAW]),
        Line::new(
            "no certificate, mesh name",
            tls(None, &["istio"]),
            [refused_certificate(None), refused_certificate(None)],
        ),
        Line::new("stranger, mesh name", tls(Some(stranger), &["istio"]), [bad(stranger), bad(stranger)]),
        Line::new("stranger, no name", tls(Some(stranger), &[]), [bad(stranger), RAW]),
        Line::new("foreign, mesh name", tls(Some(foreign), &["istio"]), [bad(foreign), bad(foreign)]),
        Line::new("foreign, no name", tls(Some(foreign), &[]), [bad(foreign), RAW]),
        Line { greets: true, ..Line::new("nothing", silence(), [silent.clone(), silent]) },
    ]
}

/// Where bytes are cut, where they end, and what is almost TLS.
fn fine_points(mesh: &Mesh) -> Vec<Line> {
    let tls = |alpn: &[&str]| mesh.client(Some(Cert::Mesh), &names(alpn));
    let cut = |cut| Opening::Tls(tls(&["istio"]), cut);
    let many: Vec<String> = (0..100).map(|n| format!("{n:0>160}")).chain(["istio".to_owned()]).collect();
    let more: Vec<String> = (0..240).map(|n| format!("{n:0>160}")).chain(["istio".to_owned()]).collect();
    let large = |alpn: &[String]| Opening::Tls(mesh.client(Some(Cert::Mesh), alpn), Cut::Whole);
    let tls12 = |alpn: &[&str]| Opening::Tls(tls(alpn).with_versions(&[&rustls::version::TLS12]), Cut::Whole);
    let whole = hello(&tls(&["istio"]));
    let half = whole[..whole.len() / 2].to_vec();
    let fin = |bytes: &[u8]| Opening::Bytes(vec![bytes.to_vec()], Fin::AtOnce);
    let pieces = |pieces: &[&[u8]]| Opening::Bytes(pieces.iter().map(|piece| piece.to_vec()).collect(), Fin::Later);

    let plaintext = || refused("plaintext_in_strict", "plaintext", Response::Nothing);
    let left = || refused("client_gone", "-", Response::Nothing);
    let gone = || refused("peer_closed", "tls", Response::Nothing);
    let incomplete = || refused("incomplete_hello", "-", Response::Nothing);
    let tls11 = || refused("protocol", "tls", TLS11_ALERT);
    let version = || refused("protocol", "tls", Response::Alert(AlertDescription::ProtocolVersion));
    vec![
        // Where a hello is cut changes nothing.
        Line::new("a byte a segment", cut(Cut::Bytes), [MESH, MESH]),
        Line::new("a pause inside", cut(Cut::Pause(700, Duration::from_secs(3))), [MESH, MESH]),
        Line::new("a pause in the header", cut(Cut::Pause(3, Duration::from_secs(1))), [MESH, MESH]),
        Line::new("records of 200", cut(Cut::Records(200)), [MESH, MESH]),
        Line::new("records of 50", cut(Cut::Records(50)), [MESH, MESH]),
        Line::new("records of 5", cut(Cut::Records(5)), [MESH, MESH]),
        Line::new("records of 1", cut(Cut::Records(1)), [MESH, MESH]),
        Line::new("a hello of 17 KiB", large(&many), [MESH, MESH]),
        Line::new("a hello of 40 KiB", large(&more), [MESH, MESH]),
        // Where the client ends.
        Line::new("text, FIN right behind it", fin(b"printf x | nc -N"), [plaintext(), PLAIN]),
        Line::new("FIN alone", fin(b""), [left(), left()]),
        Line::new("three bytes of a hello, FIN", fin(&[0x16, 3, 1]), [gone(), incomplete()]),
        Line::new("half a hello, FIN", fin(&half), [gone(), incomplete()]),
        Line::new(
            "half a hello, silence",
            bytes(half),
            [at_the_deadline("handshake_timeout", "tls"), at_the_deadline("incomplete_hello", "-")],
        ),
        Line::new(
            "0x16, silence",
            bytes([0x16]),
            [at_the_deadline("handshake_timeout", "tls"), at_the_deadline("incomplete_hello", "-")],
        ),
        // Byte 0 alone settles plaintext.
        Line::new("one byte", bytes("x"), [plaintext(), PLAIN]),
        Line::new("two bytes, a pause, eight more", pieces(&[b"ab", b"cdefghij"]), [plaintext(), PLAIN]),
        Line::new("an alert record", bytes([0x15, 3, 1, 0, 2, 1, 0]), [plaintext(), PLAIN]),
        Line::new("a hello of SSLv2", bytes([0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10]), [plaintext(), PLAIN]),
        // Names.
        Line::new("mesh name last", Opening::Tls(tls(&["h2", "http/1.1", "istio"]), Cut::Whole), [MESH, MESH]),
        Line::new("istio-http/1.0", Opening::Tls(tls(&["istio-http/1.0"]), Cut::Whole), [MESH, MESH]),
        Line::new("ISTIO", Opening::Tls(tls(&["ISTIO"]), Cut::Whole), [MESH, RAW]),
        Line::new("istio-http/2", Opening::Tls(tls(&["istio-http/2"]), Cut::Whole), [MESH, RAW]),
        // Versions; 1.3 alone is served unless configured otherwise.
        Line::new("TLS 1.2, mesh name", tls12(&["istio"]), [version(), version()]),
        Line::new("TLS 1.2, no name", tls12(&[]), [version(), RAW]),
        Line::new("TLS 1.1, mesh name", bytes(tls11_hello(&names(&["istio"]))), [tls11(), tls11()]),
        Line::new("TLS 1.1, no name", bytes(tls11_hello(&[])), [tls11(), RAW]),
    ]
}

/// 0x16 in front, and then something that no ClientHello has: plaintext under PERMISSIVE, a failed handshake under STRICT.
fn garbage(mesh: &Mesh) -> Vec<Line> {
    let whole = hello(&mesh.client(Some(Cert::Mesh), &names(&["istio"])));
    let mut junk_body = in_records(&whole, 16_000);
    // The length of the session id: longer than the message.
    junk_body[5 + 4 + 2 + 32] = 0xff;
    let neither = || refused("protocol", "tls", Response::Whatever);
    let text = b"GET / HTTP/1.1\r\n\r\n";
    let with = |header: &[u8]| bytes([header, text.as_slice()].concat());
    vec![
        Line::new("major version 2", with(&[0x16, 2, 0]), [neither(), PLAIN]),
        Line::new("record of length 0", with(&[0x16, 3, 1, 0, 0]), [neither(), PLAIN]),
        Line::new("record of length 0xffff", with(&[0x16, 3, 1, 0xff, 0xff]), [neither(), PLAIN]),
        Line::new("handshake type 2", with(&[0x16, 3, 1, 0, 18, 2, 0, 0, 14]), [neither(), PLAIN]),
        Line::new("message of 16 MiB", with(&[0x16, 3, 1, 0, 18, 1, 0xff, 0xff, 0xff]), [neither(), PLAIN]),
        // Neither TLS that could be served nor plaintext; Envoy forwards it; here what looks like TLS is never forwarded as plaintext.
        Line::new(
            "a body that does not parse",
            bytes(junk_body),
            [neither(), refused("malformed_hello", "-", Response::Nothing)],
        ),
    ]
}

/// Ports where the server may speak first.
fn server_first(mesh: &Mesh) -> Vec<Case> {
    let case = |id: &str, mode: Mode, greets, opening, verdict| Case {
        id: format!("{id} on a server-first port under {}", mode.name()),
        mode: mode.name(),
        greets,
        server_first: true,
        opening,
        verdict,
    };
    let mesh_client = || Opening::Tls(mesh.client(Some(Cert::Mesh), &names(&["istio"])), Cut::Whole);
    let own_tls = || Opening::Tls(RawPeer::anonymous(), Cut::Whole);
    let slow = || Opening::Bytes(vec![Vec::new(), b"HELO x\r\n".to_vec()], Fin::Later);
    vec![
        case("silence", Mode::Strict, true, silence(), at_the_deadline("silent_client", "-")),
        case("silence", Mode::Permissive, true, silence(), PLAIN),
        case("silence", Mode::Disable, true, silence(), Verdict::Forwarded { transport: "-" }),
        case("text after the greeting", Mode::Permissive, true, slow(), PLAIN),
        case("text", Mode::Permissive, true, bytes("HELO x\r\n"), PLAIN),
        case("mesh", Mode::Strict, true, mesh_client(), MESH),
        case("mesh", Mode::Permissive, true, mesh_client(), MESH),
        case("the app's own TLS", Mode::Permissive, false, own_tls(), RAW),
        case("no certificate", Mode::Strict, true, own_tls(), refused_certificate(None)),
    ]
}

#[test]
fn every_mode_and_every_opening() {
    let mesh = Mesh::new();
    let lines = [table(&mesh), fine_points(&mesh), garbage(&mesh)].concat();
    let cases: Vec<Case> = lines.iter().flat_map(Line::cases).chain(server_first(&mesh)).collect();
    all_pass(&mesh, &cases);
    println!("{} cells, all as the table says", cases.len());
}

/// Envoy loses most of these.
#[test]
fn a_fin_right_behind_plaintext_loses_nothing() {
    let scene = crate::support::Scene::new("PERMISSIVE");
    for _ in 0..100 {
        assert!(crate::support::passed(scene.inbound, b"printf x | nc -N"));
    }
    assert_eq!(scene.app.count(), 100);
}
