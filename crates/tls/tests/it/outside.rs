//! The world outside of the mesh: calling its servers, and serving its clients.

use std::sync::Arc;

use portcullis_identity::HostPattern;
use portcullis_testkit::certs::{Authority, Issued, Profile, San, now};
use portcullis_testkit::{KeyKind, RawPeer};
use portcullis_tls::{
    CertificateFor, Clock, HandshakeError, HandshakeFault, MinVersion, OneWayError, OneWayInfo, OneWayParts,
    OneWayServer, OriginationError, OriginationParts, Originator, Roots, RootsError, ServerInfo, Stream, StreamFault,
    SystemRoots, accept_one_way, originate,
};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::common::{alert, pipe};

const HOST: &str = "api.example.com";

pub(crate) fn web_ca() -> Authority {
    Authority::self_signed(&Profile { sans: None, ..Profile::authority("unused", "CN=a CA of the web") })
}

/// A server's certificate as the web's CAs issue them.
pub(crate) fn server_profile(names: &[&str]) -> Profile {
    let sans = names.iter().map(|name| match name.parse::<std::net::Ipv4Addr>() {
        Ok(ip) => San::Ip(ip.octets()),
        Err(_) if name.contains("://") => San::uri(name),
        Err(_) => San::Dns((*name).to_owned()),
    });
    Profile {
        sans: Some(sans.collect()),
        san_critical: false,
        extended_key_usage: Some(vec![Profile::SERVER_AUTH]),
        ..Profile::leaf("unused")
    }
}

fn client_profile() -> Profile {
    Profile { extended_key_usage: Some(vec![Profile::CLIENT_AUTH]), ..server_profile(&["client.example.com"]) }
}

struct Call<'a> {
    ca: &'a Authority,
    client: Option<&'a Issued>,
    names: &'a [&'a str],
    sni: &'a str,
    min_version: MinVersion,
}

impl<'a> Call<'a> {
    fn new(ca: &'a Authority) -> Self {
        Self { ca, client: None, names: &[], sni: HOST, min_version: MinVersion::Tls12 }
    }

    fn originator(&self) -> Result<Originator, OriginationError> {
        let (chain, key) = self.client.map(|issued| (issued.cert_pem(), issued.key_pem())).unwrap_or_default();
        let ca = self.ca.bundle_pem();
        let parts = OriginationParts {
            ca: Roots::Chosen(ca.as_bytes()),
            client: self.client.map(|_| (chain.as_bytes(), key.as_bytes())),
            subject_alt_names: &self.names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
            sni: self.sni,
            min_version: self.min_version,
        };
        Originator::new(&parts, &Clock::system())
    }
}

type Originated = Result<(Stream<DuplexStream>, ServerInfo), HandshakeError>;

/// We call a server of rustls, which answers everything with what it has received. Also what the server saw.
async fn call(call: &Call<'_>, server: rustls::ServerConfig) -> (Originated, std::io::Result<Option<String>>) {
    let originator = call.originator().unwrap();
    let (near, far) = pipe();
    let serve = async {
        let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(far).await?;
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let mut echo = vec![0; 5];
        stream.read_exact(&mut echo).await?;
        stream.write_all(&echo).await?;
        stream.shutdown().await?;
        Ok(name)
    };
    let dial = async {
        let (mut stream, info) = originate(near, &originator).await?;
        stream.write_all(b"hello").await.unwrap();
        let mut echo = Vec::new();
        stream.read_to_end(&mut echo).await.unwrap();
        assert_eq!(echo, b"hello");
        Ok((stream, info))
    };
    tokio::join!(dial, serve)
}

fn peer(ca: &Authority, profile: &Profile) -> RawPeer {
    RawPeer::presenting(&ca.issue(profile))
}

#[tokio::test]
async fn a_server_with_the_name_is_called_with_both_versions() {
    let ca = web_ca();
    for (version, label) in [(&rustls::version::TLS13, "TLSv1.3"), (&rustls::version::TLS12, "TLSv1.2")] {
        // It sends tickets, as most servers do; they are not used.
        let server = peer(&ca, &server_profile(&[HOST])).with_versions(&[version]).server();
        let (ours, seen) = call(&Call::new(&ca), server).await;
        assert_eq!(ours.unwrap().1.negotiated.tls_version, label);
        assert_eq!(seen.unwrap().as_deref(), Some(HOST));
    }
}

#[tokio::test]
async fn names_decide_which_server_it_is() {
    let ca = web_ca();
    const ID: &str = "spiffe://other/ns/x/sa/api";
    // (names of the certificate, sni, subjectAltNames, accepted)
    let cases: &[(&[&str], &str, &[&str], bool)] = &[
        (&[HOST], HOST, &[], true),
        (&[HOST], "API.example.com", &[], true),
        (&["*.example.com"], HOST, &[], true),
        (&["*.example.com"], "a.api.example.com", &[], false),
        (&["other.example.com"], HOST, &[], false),
        (&["10.1.2.3"], "10.1.2.3", &[], true),
        (&["10.1.2.4"], "10.1.2.3", &[], false),
        (&["10.1.2.3"], HOST, &[], false),
        // Once names are given, the sni does not count.
        (&[HOST], "front.example.com", &[HOST], true),
        (&[HOST], HOST, &["other.example.com"], false),
        (&["*.example.com"], "x", &["other.test", HOST], true),
        (&["10.1.2.3"], HOST, &["10.1.2.3"], true),
        (&[ID], HOST, &[ID], true),
        (&["spiffe://other/ns/x/sa/api2"], HOST, &[ID], false),
        (&["spiffe://other/ns/x/sa/Api"], HOST, &[ID], false),
        (&[HOST, ID], HOST, &["spiffe://other"], false),
    ];
    for (certificate, sni, names, accepted) in cases {
        let server = peer(&ca, &server_profile(certificate)).server();
        let (ours, seen) = call(&Call { sni, names, ..Call::new(&ca) }, server).await;
        match ours {
            Ok((_, info)) => {
                assert!(accepted, "{certificate:?} {sni} {names:?}");
                assert_eq!(info.negotiated.cipher, "TLS_AES_128_GCM_SHA256");
            }
            Err(error) => {
                assert!(!accepted, "{certificate:?} {sni} {names:?}: {error}");
                assert_eq!((error.fault(), error.class()), (HandshakeFault::ServerNameMismatch, "server-name"));
                assert_eq!(error.reason(), "server_name_mismatch");
                assert!(alert(&seen).is_some());
                let expected = names.first().unwrap_or(sni);
                assert!(error.to_string().contains(&format!("expected was {expected}")), "{error}");
                if !certificate.iter().any(|name| name.starts_with("10.")) {
                    assert!(error.to_string().contains(certificate[0]), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_verify_is_refused_whatever_its_name() {
    let (ca, other) = (web_ca(), web_ca());
    let good = || server_profile(&[HOST, "spiffe://a/b"]);
    let cases = [
        (other.issue(&good()), HandshakeFault::UnknownCa),
        (portcullis_testkit::certs::self_signed_leaf(&good()), HandshakeFault::UnknownCa),
        (ca.issue(&good().valid(now() - 9, now() - 3)), HandshakeFault::Expired),
        (ca.issue(&good().valid(now() + 300, now() + 900)), HandshakeFault::NotYetValid),
        (
            ca.issue(&Profile { extended_key_usage: Some(vec![Profile::CLIENT_AUTH]), ..good() }),
            HandshakeFault::BadCertificate,
        ),
        (ca.issue(&Profile { sha1: true, ..good() }), HandshakeFault::BadCertificate),
    ];
    for names in [&[][..], &[HOST], &["spiffe://a/b"]] {
        for (issued, fault) in &cases {
            let originator = Call { names, ..Call::new(&ca) }.originator().unwrap();
            let (near, far) = pipe();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(RawPeer::presenting(issued).server()));
            let (ours, seen) =
                tokio::join!(originate(near, &originator), async { acceptor.accept(far).await.map(drop) });
            let error = ours.unwrap_err();
            // A namesake's root cannot be told from a wrong signature.
            let fault = if error.class() == "bad-signature" { HandshakeFault::BadCertificate } else { *fault };
            assert_eq!(error.fault(), fault, "{error}");
            assert!(alert(&seen).is_some(), "{error}");
        }
    }
    // The right certificate, without its key.
    let copied = RawPeer::copying(&ca.issue(&good()), portcullis_testkit::Key::new(KeyKind::P256));
    let originator = Call::new(&ca).originator().unwrap();
    let (near, far) = pipe();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(copied.server()));
    let (ours, _) = tokio::join!(originate(near, &originator), acceptor.accept(far));
    assert_eq!(ours.unwrap_err().fault(), HandshakeFault::BadCertificate);
}

#[tokio::test]
async fn our_certificate_is_presented_to_a_server_that_wants_one() {
    let ca = web_ca();
    let client = ca.issue(&client_profile());
    let wants = |ca: &Authority| {
        let issued = ca.issue(&server_profile(&[HOST]));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.root_der().clone()).unwrap();
        let provider = portcullis_tls::provider();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(issued.chain.clone(), issued.key.der().clone_key())
            .unwrap()
    };
    let (ours, seen) = call(&Call { client: Some(&client), ..Call::new(&ca) }, wants(&ca)).await;
    ours.unwrap();
    seen.unwrap();
    // Without one, the server refuses, which in TLS 1.3 is seen by the first read.
    let originator = Call::new(&ca).originator().unwrap();
    let (near, far) = pipe();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(wants(&ca)));
    let dial = async {
        let (mut stream, _) = originate(near, &originator).await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        StreamFault::of(&error)
    };
    let (fault, served) = tokio::join!(dial, async { acceptor.accept(far).await.map(drop) });
    assert!(served.is_err());
    assert_eq!(fault.alert(), Some("certificate_required"));
}

#[test]
fn what_cannot_be_called_is_refused_before_any_call() {
    let ca = web_ca();
    let class = |call: Call<'_>| call.originator().unwrap_err();
    assert!(matches!(class(Call { sni: "a b", ..Call::new(&ca) }), OriginationError::ServerName(_)));
    for name in ["*.example.com", "", "a b", "spiffe://a b", ":x", "http:", "1:2"] {
        let error = class(Call { names: &[name], ..Call::new(&ca) });
        assert_eq!(error, OriginationError::SubjectAltName(name.to_owned()));
    }
    assert!(Call { names: &["::1", "a.b", "10.0.0.1", "urn:x"], ..Call::new(&ca) }.originator().is_ok());
    let (one, other) = (ca.issue(&client_profile()), ca.issue(&client_profile()));
    let mixed = Issued { chain: one.chain.clone(), key: other.key };
    assert!(matches!(class(Call { client: Some(&mixed), ..Call::new(&ca) }), OriginationError::Client(_)));
    let parts =
        |ca| OriginationParts { ca, client: None, subject_alt_names: &[], sni: HOST, min_version: MinVersion::Tls13 };
    let bundle = ca.bundle_pem();
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let both = format!("{garbage}{bundle}");
    for system in [&bundle, &both].map(|usable| SystemRoots::from_pem(usable.as_bytes()).unwrap()) {
        let parts = |ca| OriginationParts { ca, ..parts(Roots::Chosen(b"")) };
        assert!(Originator::new(&parts(Roots::System(&system)), &Clock::system()).is_ok());
    }
    assert_eq!(SystemRoots::from_pem(garbage.as_bytes()).unwrap_err(), RootsError::None { count: 1 });
    assert!(SystemRoots::from_pem(b"x").is_err());
    for bad in [Roots::Chosen(both.as_bytes()), Roots::Chosen(b"")] {
        let error = Originator::new(&parts(bad), &Clock::system()).unwrap_err();
        assert!(error.to_string().starts_with("caCertificates: "), "{error}");
    }
}

#[tokio::test]
async fn an_old_server_is_refused_if_only_tls_1_3_is_allowed() {
    let ca = web_ca();
    let server = peer(&ca, &server_profile(&[HOST])).with_versions(&[&rustls::version::TLS12]).server();
    let (ours, _) = call(&Call { min_version: MinVersion::Tls13, ..Call::new(&ca) }, server).await;
    let error = ours.unwrap_err();
    assert_eq!(error.fault(), HandshakeFault::PeerAlert, "{error}");
}

fn hosts(names: &[&str]) -> Vec<HostPattern> {
    names.iter().map(|name| HostPattern::parse(name).unwrap()).collect()
}

fn certificate(ca: &Authority, names: &[&str]) -> CertificateFor {
    let issued = ca.issue(&server_profile(names));
    CertificateFor { hosts: hosts(names), chain: issued.cert_pem().into(), key: issued.key_pem().into_bytes().into() }
}

fn parts(certificates: Vec<CertificateFor>) -> OneWayParts {
    OneWayParts { certificates, first_without_name: false, client_ca: None, min_version: MinVersion::Tls12 }
}

fn server(parts: &OneWayParts) -> Result<OneWayServer, OneWayError> {
    OneWayServer::new(parts, &Clock::system())
}

type Accepted = Result<OneWayInfo, HandshakeError>;

/// A client of rustls calls us with this name. Also the names of the certificate that it got.
async fn accept(
    server: &OneWayServer,
    client: rustls::ClientConfig,
    name: &str,
) -> (Accepted, std::io::Result<Vec<String>>) {
    let (near, far) = pipe();
    let ours = async {
        let (mut stream, info) = accept_one_way(near, server).await?;
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        Ok(info)
    };
    let dial = async {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, far).await?;
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).await?;
        assert_eq!(seen, b"hello");
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let leaf = webpki::EndEntityCert::try_from(&leaf).unwrap();
        Ok(leaf.valid_dns_names().map(str::to_owned).collect())
    };
    tokio::join!(ours, dial)
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let ca = web_ca();
    let shop = certificate(&ca, &["shop.example.com"]);
    let all = certificate(&ca, &["*.example.com", "example.org"]);
    let server = server(&parts(vec![shop, all])).unwrap();
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        for (name, expected) in [
            ("shop.example.com", Some("shop.example.com")),
            ("SHOP.example.com", Some("shop.example.com")),
            ("other.example.com", Some("*.example.com")),
            ("example.org", Some("*.example.com")),
            ("example.com", None),
            ("shop.example.net", None),
            // An address is not sent.
            ("10.1.2.3", None),
        ] {
            let client = RawPeer::anonymous().with_versions(versions).client();
            let (ours, seen) = accept(&server, client, name).await;
            let Some(expected) = expected else {
                let error = ours.unwrap_err();
                let class = if name == "10.1.2.3" { "no-server-name" } else { "unknown-server-name" };
                assert_eq!((error.fault(), error.class()), (HandshakeFault::UnknownServerName, class));
                assert_eq!(alert(&seen), Some(rustls::AlertDescription::UnrecognisedName));
                continue;
            };
            let info = ours.unwrap();
            assert_eq!(info.sni.unwrap(), name.to_ascii_lowercase());
            assert_eq!(
                info.negotiated.tls_version,
                if versions[0].version == rustls::ProtocolVersion::TLSv1_3 { "TLSv1.3" } else { "TLSv1.2" }
            );
            assert_eq!(seen.unwrap()[0], expected);
        }
    }
}

#[tokio::test]
async fn a_client_without_a_name_gets_the_first_certificate_if_configured() {
    let ca = web_ca();
    let certificates = vec![certificate(&ca, &["a.example.com"]), certificate(&ca, &["b.example.com"])];
    let server = server(&OneWayParts { first_without_name: true, ..parts(certificates) }).unwrap();
    let (ours, seen) = accept(&server, RawPeer::anonymous().client(), "10.1.2.3").await;
    assert_eq!((ours.unwrap().sni, seen.unwrap()), (None, vec!["a.example.com".to_owned()]));
    let (ours, _) = accept(&server, RawPeer::anonymous().client(), "c.example.com").await;
    assert_eq!(ours.unwrap_err().fault(), HandshakeFault::UnknownServerName);
}

/// The first hello has a share of a group that we do not have, so it is answered with HelloRetryRequest.
#[tokio::test]
async fn an_unknown_name_is_answered_alike_after_a_retry() {
    let ca = web_ca();
    let server = server(&parts(vec![certificate(&ca, &["a.example.com"])])).unwrap();
    for (name, known) in [("a.example.com", true), ("b.example.com", false)] {
        let mut provider = (*portcullis_tls::provider()).clone();
        // The first is the one whose share is sent.
        provider.kx_groups =
            vec![rustls::crypto::aws_lc_rs::kx_group::MLKEM768, rustls::crypto::aws_lc_rs::kx_group::SECP384R1];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.root_der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (ours, seen) = accept(&server, client, name).await;
        if known {
            assert_eq!(ours.unwrap().negotiated.group, "secp384r1");
        } else {
            assert_eq!(ours.unwrap_err().fault(), HandshakeFault::UnknownServerName);
            assert_eq!(alert(&seen), Some(rustls::AlertDescription::UnrecognisedName));
        }
    }
}

#[tokio::test]
async fn a_client_is_verified_if_asked_to() {
    let (ca, clients, others) = (web_ca(), web_ca(), web_ca());
    let client_ca = Some(clients.bundle_pem().into_bytes());
    let server = server(&OneWayParts { client_ca, ..parts(vec![certificate(&ca, &["a.example.com"])]) }).unwrap();
    let expired = client_profile().valid(now() - 9, now() - 3);
    for (peer, fault) in [
        (RawPeer::presenting(&clients.issue(&client_profile())), None),
        (RawPeer::anonymous(), Some(HandshakeFault::NoCertificate)),
        (RawPeer::presenting(&clients.issue(&expired)), Some(HandshakeFault::Expired)),
        (RawPeer::presenting(&others.issue(&client_profile())), Some(HandshakeFault::UnknownCa)),
        (RawPeer::presenting(&clients.issue(&server_profile(&["x.test"]))), Some(HandshakeFault::BadCertificate)),
    ] {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let (ours, seen) = accept(&server, peer.clone().with_versions(&[version]).client(), "a.example.com").await;
            match (ours, fault) {
                (Ok(_), None) => drop(seen.unwrap()),
                (Err(error), Some(fault)) => {
                    let fault = if error.class() == "bad-signature" { HandshakeFault::BadCertificate } else { fault };
                    assert_eq!(error.fault(), fault, "{error}");
                    assert!(alert(&seen).is_some());
                }
                (ours, fault) => panic!("{ours:?} {fault:?}"),
            }
        }
    }
}

#[test]
fn certificates_that_clients_would_refuse_are_refused() {
    let ca = web_ca();
    let good = || certificate(&ca, &["a.example.com"]);
    let class = |parts: OneWayParts| server(&parts).unwrap_err().class();
    assert_eq!(class(parts(vec![])), "no-certificate");
    assert_eq!(class(parts(vec![CertificateFor { hosts: vec![], ..good() }])), "no-certificate");
    assert_eq!(
        class(parts(vec![good(), CertificateFor { hosts: hosts(&["b.example.com"]), ..good() }])),
        "server-name"
    );
    assert_eq!(class(parts(vec![CertificateFor { hosts: hosts(&["*.example.com"]), ..good() }])), "server-name");
    assert_eq!(class(parts(vec![CertificateFor { key: good().key, ..good() }])), "own-key");
    let expired = ca.issue(&server_profile(&["a.example.com"]).valid(now() - 9, now() - 3));
    let expired =
        CertificateFor { chain: expired.cert_pem().into(), key: expired.key_pem().into_bytes().into(), ..good() };
    assert_eq!(class(parts(vec![expired])), "expired");
    assert_eq!(class(parts(vec![CertificateFor { chain: b"x".to_vec(), ..good() }])), "pem");
    assert_eq!(class(OneWayParts { client_ca: Some(b"x".to_vec()), ..parts(vec![good()]) }), "client-ca");
    let ours = server(&parts(vec![good()])).unwrap();
    assert!((now()..=now() + 3600).contains(&ours.not_after_unix()));
    assert!(!format!("{ours:?} {:?}", parts(vec![good()])).contains("KEY"));
}
