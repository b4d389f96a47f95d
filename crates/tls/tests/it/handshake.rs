//! What a handshake admits, what it refuses, and what it says about it: to us and to the peer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::{
    DOMAIN, ME, WEB, alert, between, credentials, credentials_with, expect, files, id, inbound, inbound_config,
    outbound, pipe, rules, still_clock, td, validate,
};
use portcullis_identity::leaf::{Compat, Relaxed, Role};
use portcullis_testkit::certs::{Authority, Extra, Issued, Profile, San, now};
use portcullis_testkit::{Key, KeyKind, RawPeer};
use portcullis_tls::client::{self, Sni};
use portcullis_tls::{CredentialFiles, Credentials, HandshakeError, HandshakeFault, MinVersion, server};
use rustls::{AlertDescription, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn ca() -> Authority {
    Authority::root(DOMAIN)
}

#[tokio::test]
async fn negotiates_mlkem_with_self() {
    let ca = ca();
    let (ours, theirs) = between(&credentials(&ca, ME), &credentials(&ca, WEB), &expect(WEB)).await;
    let ((_, server), (_, client)) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((server.id.as_str(), client.id.as_str()), (WEB, ME));
    for peer in [server, client] {
        assert_eq!((peer.tls_version, peer.group), ("TLSv1.3", "X25519MLKEM768"));
        assert_eq!(peer.cipher, "TLS_AES_128_GCM_SHA256");
        assert_eq!(peer.relaxed, Relaxed::default());
        assert!(!peer.alpn_istio, "our server has no list");
        assert!((now()..=now() + 3600).contains(&peer.not_after_unix));
    }
}

#[tokio::test]
async fn client_refuses_other_identity_same_domain() {
    let ca = ca();
    let (ours, theirs) =
        between(&credentials(&ca, ME), &credentials(&ca, WEB), &expect("spiffe://example.org/other")).await;
    let error = ours.unwrap_err();
    assert_eq!((error.fault(), error.class()), (HandshakeFault::IdMismatch, "id-mismatch"));
    assert!(error.to_string().contains(WEB) && error.to_string().contains("spiffe://example.org/other"), "{error}");
    match theirs.unwrap_err() {
        HandshakeError::PeerAlert(alert) => assert_eq!(alert, AlertDescription::AccessDenied),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn copied_cert_wrong_key_refused() {
    let ca = ca();
    let ours = credentials_with(&ca, ME, |rules| rules.min_version = MinVersion::Tls12);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let peer = RawPeer::copying(&ca.workload(WEB), Key::new(KeyKind::P256)).with_versions(&[version]);
        let (inbound, _) = inbound(&ours, &peer).await;
        let (outbound, _) = outbound(&ours, &expect(WEB), &peer).await;
        for result in [inbound, outbound] {
            let error = result.unwrap_err();
            assert_eq!((error.fault(), error.class()), (HandshakeFault::BadCertificate, "possession"), "{error}");
        }
    }
}

#[tokio::test]
async fn tls_without_cert_refused_in_every_version() {
    let ours = credentials_with(&ca(), ME, |rules| rules.min_version = MinVersion::Tls12);
    let (result, seen) = inbound(&ours, &RawPeer::anonymous()).await;
    let error = result.unwrap_err();
    assert_eq!((error.fault(), error.class()), (HandshakeFault::NoCertificate, "no-cert"));
    assert_eq!(alert(&seen), Some(AlertDescription::CertificateRequired));

    let (result, seen) = inbound(&ours, &RawPeer::anonymous().with_versions(&[&rustls::version::TLS12])).await;
    assert_eq!(result.unwrap_err().fault(), HandshakeFault::NoCertificate);
    assert_eq!(alert(&seen), Some(AlertDescription::CertificateRequired));
}

#[tokio::test]
async fn the_peer_gets_the_alert_for_the_failure() {
    let ca = ca();
    let ours = credentials(&ca, ME);
    let leaf = || Profile::leaf(WEB);
    let foreign = Authority::root("partner.test").workload("spiffe://partner.test/w");
    let extra = Extra { oid: "1.2.3.4", critical: true, value: vec![5, 0] };
    for (issued, fault, expected) in [
        (ca.issue(&leaf().valid(now() - 9, now() - 3)), HandshakeFault::Expired, AlertDescription::CertificateExpired),
        (
            ca.issue(&leaf().valid(now() + 60, now() + 90)),
            HandshakeFault::NotYetValid,
            AlertDescription::CertificateExpired,
        ),
        (
            Authority::root(DOMAIN).namesake("other").workload(WEB),
            HandshakeFault::BadCertificate,
            AlertDescription::CertificateUnknown,
        ),
        (
            Authority::self_signed(&Profile::authority(DOMAIN, "CN=x")).workload(WEB),
            HandshakeFault::UnknownCa,
            AlertDescription::UnknownCA,
        ),
        (foreign, HandshakeFault::TdMismatch, AlertDescription::UnknownCA),
        (
            ca.issue(&Profile { sans: None, ..leaf() }),
            HandshakeFault::BadCertificate,
            AlertDescription::CertificateUnknown,
        ),
        (
            ca.issue(&Profile { key_usage: None, ..leaf() }),
            HandshakeFault::BadCertificate,
            AlertDescription::UnsupportedCertificate,
        ),
        (
            ca.issue(&Profile { extra: vec![extra], ..leaf() }),
            HandshakeFault::BadCertificate,
            AlertDescription::BadCertificate,
        ),
        (
            ca.issue(&Profile { trailing: vec![0], ..leaf() }),
            HandshakeFault::BadCertificate,
            AlertDescription::BadCertificate,
        ),
    ] {
        let peer = RawPeer::presenting(&issued);
        let (result, seen) = inbound(&ours, &peer).await;
        let error = result.unwrap_err();
        assert_eq!((error.fault(), alert(&seen)), (fault, Some(expected)), "{error}");
        let (result, seen) = outbound(&ours, &expect(WEB), &peer).await;
        let error = result.unwrap_err();
        assert_eq!((error.fault(), alert(&seen)), (fault, Some(expected)), "{error}");
    }
}

#[tokio::test]
async fn a_refused_client_learns_it_at_its_first_read() {
    let (here, there) = (ca(), ca());
    let (near, far) = pipe();
    let (client, server) = (credentials(&here, ME), credentials(&there, WEB));
    // The client trusts both, so that only the server refuses.
    let both = format!("{}{}", here.bundle_pem(), there.bundle_pem());
    let own = here.workload(ME);
    let client_of_both = Arc::new(validate(files(&own, &both), &rules(ME)).unwrap());
    drop(client);
    let expected = expect(WEB);
    let (ours, theirs) =
        tokio::join!(client::connect(near, &client_of_both, &expected, None), server::accept(far, &server));
    assert_eq!(theirs.unwrap_err().class(), "bad-signature", "the two roots have the same name");
    let (mut stream, peer) = ours.unwrap();
    assert_eq!(peer.id, id(WEB));
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    let fault = portcullis_tls::StreamFault::of(&error);
    assert_eq!((fault.label(), fault.alert()), ("peer_alert", Some("certificate_unknown")));
}

#[tokio::test]
async fn an_alias_shares_the_mesh_bundle_and_a_foreign_domain_does_not() {
    let ca = ca();
    let alias = ca.workload("spiffe://old.local/ns/default/sa/web");
    let ours = credentials_with(&ca, ME, |rules| rules.aliases = vec![td("old.local")]);
    let (_, peer) = inbound(&ours, &RawPeer::presenting(&alias)).await.0.unwrap();
    assert_eq!(peer.id.domain_str(), "old.local");
    // The own root vouches for the own domains only.
    let error = inbound(&credentials(&ca, ME), &RawPeer::presenting(&alias)).await.0.unwrap_err();
    assert_eq!((error.class(), error.fault()), ("td-bundle", HandshakeFault::TdMismatch));
    // And an alias may be what we are ourselves.
    let mut rules = rules("spiffe://old.local/ns/default/sa/web");
    rules.aliases = vec![td("old.local")];
    validate(files(&alias, &ca.bundle_pem()), &rules).unwrap();
}

#[tokio::test]
async fn relaxations_are_used_only_where_allowed_and_are_reported() {
    let ca = ca();
    let one = ca.issue(&Profile { extended_key_usage: Some(vec![Profile::CLIENT_AUTH]), ..Profile::leaf(WEB) });
    let peer = RawPeer::presenting(&one);
    let strict = credentials(&ca, ME);
    assert_eq!(inbound(&strict, &peer).await.0.unwrap_err().class(), "eku");
    let relaxed = credentials_with(&ca, ME, |rules| rules.compat = Compat { eku: true, ku_critical: false });
    let (_, info) = inbound(&relaxed, &peer).await.0.unwrap();
    assert_eq!(info.relaxed, Relaxed { eku: true, ku_critical: false });
    assert_eq!(outbound(&relaxed, &expect(WEB), &peer).await.0.unwrap_err().class(), "eku", "it may be no server");
}

#[tokio::test]
async fn identity_logged_equals_identity_authorised() {
    // One set of credentials, many connections at once: no verdict may stray into another connection.
    let ca = ca();
    let ours = credentials(&ca, ME);
    let connections = (0..32).map(|index| {
        let (ca, ours) = (&ca, &ours);
        async move {
            let text = format!("spiffe://example.org/ns/default/sa/w{index}");
            let (_, peer) = inbound(ours, &RawPeer::presenting(&ca.workload(&text))).await.0.unwrap();
            assert_eq!(peer.id.as_str(), text);
        }
    });
    let mut pending: Vec<_> = connections.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        pending.retain_mut(|connection| connection.as_mut().poll(cx).is_pending());
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn a_root_that_expires_while_running_is_no_longer_used() {
    let (clock, seconds) = still_clock();
    let start = clock.now_unix();
    let root = Authority::self_signed(&Profile::authority(DOMAIN, "CN=short").valid(start - 10, start + 60));
    let other = ca();
    let own = other.workload(ME);
    let bundle = format!("{}{}", root.bundle_pem(), other.bundle_pem());
    let ours = Arc::new(Credentials::validate(files(&own, &bundle), &rules(ME), &clock).unwrap());
    let peer = RawPeer::presenting(&root.workload(WEB));
    let (_, info) = inbound(&ours, &peer).await.0.unwrap();
    assert_eq!(info.path.not_after_unix(), start + 60, "the root ends before the leaf");

    seconds.store(u64::try_from(start + 60).unwrap(), Ordering::Release);
    inbound(&ours, &peer).await.0.unwrap();
    ours.still_trusts(&info.id, &info.path).unwrap();

    seconds.store(u64::try_from(start + 61).unwrap(), Ordering::Release);
    let error = inbound(&ours, &peer).await.0.unwrap_err();
    assert_eq!(error.class(), "expired", "{error}");
    assert_eq!(ours.still_trusts(&info.id, &info.path).unwrap_err().class(), "expired");
    let others = RawPeer::presenting(&other.workload(WEB));
    inbound(&ours, &others).await.0.unwrap();
}

#[tokio::test]
async fn a_root_is_not_used_before_its_time() {
    let (clock, seconds) = still_clock();
    let start = clock.now_unix();
    let next = Authority::self_signed(&Profile::authority(DOMAIN, "CN=next").valid(start + 60, start + 9000));
    let current = ca();
    let bundle = format!("{}{}", next.bundle_pem(), current.bundle_pem());
    let ours = Arc::new(Credentials::validate(files(&current.workload(ME), &bundle), &rules(ME), &clock).unwrap());
    assert_eq!(ours.warnings().len(), 1, "{:?}", ours.warnings());
    let peer = RawPeer::presenting(&next.issue(&Profile::leaf(WEB)));
    assert_eq!(inbound(&ours, &peer).await.0.unwrap_err().class(), "not-yet-valid");
    seconds.store(u64::try_from(start + 60).unwrap(), Ordering::Release);
    inbound(&ours, &peer).await.0.unwrap();
}

#[tokio::test]
async fn live_peers_are_checked_again_by_new_bundles() {
    let (old, new) = (ca(), ca());
    let before = credentials(&old, ME);
    let (_, peer) = inbound(&before, &RawPeer::presenting(&old.workload(WEB))).await.0.unwrap();
    before.still_trusts(&peer.id, &peer.path).unwrap();
    let with = |bundle: &str| validate(files(&new.workload(ME), bundle), &rules(ME)).unwrap();
    with(&format!("{}{}", old.bundle_pem(), new.bundle_pem())).still_trusts(&peer.id, &peer.path).unwrap();
    assert_eq!(with(&new.bundle_pem()).still_trusts(&peer.id, &peer.path).unwrap_err().class(), "unknown-issuer");

    let alias = "spiffe://old.local/w";
    let aliased = credentials_with(&old, ME, |rules| rules.aliases = vec![td("old.local")]);
    let (_, peer) = inbound(&aliased, &RawPeer::presenting(&old.workload(alias))).await.0.unwrap();
    aliased.still_trusts(&peer.id, &peer.path).unwrap();
    assert_eq!(before.still_trusts(&peer.id, &peer.path).unwrap_err().class(), "td-bundle");
}

#[tokio::test]
async fn an_intermediate_that_ends_first_ends_the_path() {
    let ca = ca();
    let middle = ca.below(&Profile::authority(DOMAIN, "CN=middle").valid(now() - 10, now() + 600));
    let ours = credentials(&ca, ME);
    let (_, peer) = inbound(&ours, &RawPeer::presenting(&middle.workload(WEB))).await.0.unwrap();
    assert!((now() + 590..=now() + 600).contains(&peer.path.not_after_unix()));
    assert!(peer.not_after_unix > now() + 3000);
}

#[tokio::test]
async fn chain_of_200_refused_fast() {
    let ca = ca();
    let ours = credentials(&ca, ME);
    let mut issued = ca.workload(WEB);
    let filler = ca.below(&Profile::authority(DOMAIN, "CN=filler")).workload("spiffe://example.org/x");
    issued.chain.extend((0..200).map(|_| filler.chain[1].clone()));
    let start = Instant::now();
    let error = inbound(&ours, &RawPeer::presenting(&issued)).await.0.unwrap_err();
    assert_eq!(
        error.fault(),
        if error.class() == "chain-length" { HandshakeFault::BadCertificate } else { HandshakeFault::Protocol }
    );
    assert!(start.elapsed() < BOUNDED);
    let verdict = ours.trust().verify(&issued.chain, Role::Client, rustls_pki_types::UnixTime::now());
    assert_eq!(verdict.unwrap_err().class(), "chain-length");
}

/// Far beyond what bounded work takes, even unoptimised on a busy machine, and far below what unbounded work would.
const BOUNDED: Duration = Duration::from_secs(30);

/// Chains that have many ways to go wrong: the work on each is bounded.
#[test]
fn pathological_chains_are_decided_fast() {
    let ca = ca();
    let ours = credentials(&ca, ME);
    let check = |name: &str, chain: &[rustls_pki_types::CertificateDer<'static>], expected: &[&str]| {
        let start = Instant::now();
        let verdict = ours.trust().verify(chain, Role::Client, rustls_pki_types::UnixTime::now());
        let class = verdict.map_or_else(|error| error.class(), |_| "valid");
        assert!(expected.contains(&class), "{name}: {class}");
        assert!(start.elapsed() < BOUNDED, "{name} took {:?}", start.elapsed());
    };
    // Intermediates of one name that all sign each other: every order is a candidate.
    let twin = |above: &Authority| above.below(&Profile::authority(DOMAIN, "CN=twin"));
    let mut tangled = twin(&Authority::self_signed(&Profile::authority(DOMAIN, "CN=twin"))).workload(WEB);
    for _ in 0..8 {
        let other = twin(&Authority::self_signed(&Profile::authority(DOMAIN, "CN=twin")));
        tangled.chain.insert(1, other.workload(WEB).chain[1].clone());
    }
    tangled.chain.truncate(10);
    check("tangled", &tangled.chain, &["bad-signature", "unknown-issuer", "chain-work"]);
    // The same certificate over and over.
    let middle = ca.below(&Profile::authority(DOMAIN, "CN=middle"));
    let mut repeated = middle.workload(WEB);
    repeated.chain.extend((0..8).map(|_| repeated.chain[1].clone()).collect::<Vec<_>>());
    check("repeated", &repeated.chain, &["valid"]);
    // In the wrong order, and with strangers in between: that is allowed.
    let lower = middle.below(&Profile::authority(DOMAIN, "CN=lower"));
    let mut shuffled = lower.workload(WEB);
    shuffled.chain[1..].reverse();
    shuffled.chain.insert(1, Authority::root("stranger.test").workload("spiffe://stranger.test/w").chain[0].clone());
    check("shuffled", &shuffled.chain, &["valid"]);
    // Seven below the root are one more than webpki goes.
    let deep = (0..7).fold(ca.clone(), |above, n| above.below(&Profile::authority(DOMAIN, &format!("CN=level {n}"))));
    check("deep", &deep.workload(WEB).chain, &["chain-length"]);
    let six = (0..6).fold(ca.clone(), |above, n| above.below(&Profile::authority(DOMAIN, &format!("CN=level {n}"))));
    check("six", &six.workload(WEB).chain, &["valid"]);
    // A leaf with very many names; they are counted, not compared.
    let names = (0..1000).map(|n| San::Dns(format!("host-{n}.example.org")));
    let wide = Profile { sans: Some(std::iter::once(San::uri(WEB)).chain(names).collect()), ..Profile::leaf(WEB) };
    check("wide", &ca.issue(&wide).chain, &["valid"]);
    // Few certificates, and too many bytes.
    let padding = Extra { oid: "1.2.3.4", critical: false, value: vec![0; 33_000] };
    let fat = Profile { extra: vec![padding.clone()], ..Profile::authority(DOMAIN, "CN=fat") };
    check("one fat", &ca.below(&fat).workload(WEB).chain, &["valid"]);
    let fat_leaf = Profile { extra: vec![padding], ..Profile::leaf(WEB) };
    check("two fat", &ca.below(&fat).issue(&fat_leaf).chain, &["chain-length"]);
    check("nothing", &[], &["no-cert"]);
}

#[test]
fn a_constraint_on_uris_is_always_refused() {
    // permittedSubtrees with one URI: webpki refuses such constraints whatever they allow, so such a CA cannot be used.
    let uri = [b"\x86\x0b".as_slice(), b"example.org"].concat();
    let subtree = [&[0x30, u8::try_from(uri.len()).unwrap()], uri.as_slice()].concat();
    let permitted = [&[0xa0, u8::try_from(subtree.len()).unwrap()], subtree.as_slice()].concat();
    let value = [&[0x30, u8::try_from(permitted.len()).unwrap()], permitted.as_slice()].concat();
    let ca = ca();
    let extra = vec![Extra { oid: "2.5.29.30", critical: true, value }];
    let middle = ca.below(&Profile { extra, ..Profile::authority(DOMAIN, "CN=constrained") });
    let ours = credentials(&ca, ME);
    let verdict = ours.trust().verify(&middle.workload(WEB).chain, Role::Client, rustls_pki_types::UnixTime::now());
    assert_eq!(verdict.unwrap_err().class(), "name-constraint");
}

#[test]
fn weak_keys_and_hashes_are_refused() {
    let ca = ca();
    let ours = credentials(&ca, ME);
    let class = |issued: &Issued| {
        let verdict = ours.trust().verify(&issued.chain, Role::Client, rustls_pki_types::UnixTime::now());
        verdict.map_or_else(|error| error.class(), |_| "valid")
    };
    assert_eq!(class(&ca.issue(&Profile { key: KeyKind::Rsa1024, ..Profile::leaf(WEB) })), "weak-key");
    assert_eq!(class(&ca.issue(&Profile { key: KeyKind::P521, ..Profile::leaf(WEB) })), "key-type");
    assert_eq!(class(&ca.issue(&Profile { sha1: true, ..Profile::leaf(WEB) })), "weak-sig");
    let weak = ca.below(&Profile { key: KeyKind::Rsa1024, ..Profile::authority(DOMAIN, "CN=weak") });
    assert!(["bad-signature", "weak-key"].contains(&class(&weak.workload(WEB))));
    let sha1 = ca.below(&Profile { sha1: true, ..Profile::authority(DOMAIN, "CN=sha1") });
    assert_eq!(class(&sha1.workload(WEB)), "weak-sig");
    for key in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa2048] {
        let middle = ca.below(&Profile { key, ..Profile::authority(DOMAIN, "CN=middle") });
        assert_eq!(class(&middle.workload(WEB)), "valid", "{key:?}");
    }
}

#[tokio::test]
async fn every_accepted_kind_of_key_works_in_both_roles_and_versions() {
    let ca = ca();
    for key in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa2048] {
        let issued = ca.issue(&Profile { key, ..Profile::leaf(WEB) });
        let mut rules = rules(WEB);
        rules.min_version = MinVersion::Tls12;
        let ours = Arc::new(validate(files(&issued, &ca.bundle_pem()), &rules).unwrap());
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let peer = RawPeer::presenting(&issued).with_versions(&[version]);
            inbound(&ours, &peer).await.0.unwrap_or_else(|error| panic!("{key:?} {version:?}: {error}"));
            outbound(&ours, &expect(WEB), &peer).await.0.unwrap_or_else(|error| panic!("{key:?} {version:?}: {error}"));
        }
    }
}

#[tokio::test]
async fn tls_1_2_is_off_unless_asked_for() {
    let ca = ca();
    let peer = RawPeer::presenting(&ca.workload(WEB)).with_versions(&[&rustls::version::TLS12]);
    let strict = credentials(&ca, ME);
    let (result, seen) = inbound(&strict, &peer).await;
    let error = result.unwrap_err();
    assert_eq!((error.fault(), error.class()), (HandshakeFault::Protocol, "version"));
    assert_eq!(alert(&seen), Some(AlertDescription::ProtocolVersion));
    let (result, _) = outbound(&strict, &expect(WEB), &peer).await;
    assert_eq!(result.unwrap_err().class(), "protocol_version", "the server says that it cannot do ours");

    let lenient = credentials_with(&ca, ME, |rules| rules.min_version = MinVersion::Tls12);
    let (_, info) = inbound(&lenient, &peer).await.0.unwrap();
    assert_eq!((info.tls_version, info.id.as_str()), ("TLSv1.2", WEB));
    // The verifier is as strict there.
    let bad = ca.issue(&Profile { key_usage: None, ..Profile::leaf(WEB) });
    let bad = RawPeer::presenting(&bad).with_versions(&[&rustls::version::TLS12]);
    assert_eq!(inbound(&lenient, &bad).await.0.unwrap_err().class(), "ku-digsig");
    assert_eq!(outbound(&lenient, &expect(WEB), &bad).await.0.unwrap_err().class(), "ku-digsig");
}

/// Connects once and reads to the end, so that tickets are taken; says how the handshake went.
async fn kind_with(config: &Arc<rustls::ClientConfig>, acceptor: &tokio_rustls::TlsAcceptor) -> HandshakeKind {
    let (near, far) = pipe();
    let serve = async {
        let mut stream = acceptor.accept(far).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let dial = async {
        let name = ServerName::try_from("anything.test").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let mut stream = connector.connect(name, near).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        stream.get_ref().1.handshake_kind().unwrap()
    };
    tokio::join!(serve, dial).1
}

/// The same against our server.
async fn kind_with_ours(config: &Arc<rustls::ClientConfig>, ours: &Arc<Credentials>) -> HandshakeKind {
    let (near, far) = pipe();
    let serve = async {
        let (mut stream, _) = server::accept(far, ours).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let dial = async {
        let name = ServerName::try_from("anything.test").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let mut stream = connector.connect(name, near).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        stream.get_ref().1.handshake_kind().unwrap()
    };
    tokio::join!(serve, dial).1
}

#[tokio::test]
async fn stale_ticket_full_handshake() {
    let ca = ca();
    let ours = credentials_with(&ca, ME, |rules| rules.min_version = MinVersion::Tls12);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let peer = RawPeer::presenting(&ca.workload(WEB)).with_versions(&[version]);
        let config = Arc::new(peer.client());
        // Control: this client does hold a session that another server resumes, so it will offer one to us as well.
        let other = tokio_rustls::TlsAcceptor::from(Arc::new(peer.server()));
        assert_eq!(kind_with(&config, &other).await, HandshakeKind::Full, "{version:?}");
        assert_eq!(kind_with(&config, &other).await, HandshakeKind::Resumed, "{version:?}");
        for _ in 0..3 {
            assert_eq!(kind_with_ours(&config, &ours).await, HandshakeKind::Full, "{version:?}");
        }
    }
}

#[tokio::test]
async fn our_client_never_resumes() {
    let ca = ca();
    let ours = credentials(&ca, ME);
    let server = Arc::new(RawPeer::presenting(&ca.workload(WEB)).server());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&server));
    let expected = expect(WEB);
    for _ in 0..3 {
        let (near, far) = pipe();
        let serve = async {
            let mut stream = acceptor.accept(far).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            stream.get_ref().1.handshake_kind().unwrap()
        };
        let dial = async {
            let (mut stream, _) = client::connect(near, &ours, &expected, None).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        };
        assert_eq!(tokio::join!(serve, dial).0, HandshakeKind::Full);
    }
}

#[tokio::test]
async fn no_client_is_refused_for_the_protocols_it_offers() {
    let ca = ca();
    let ours = credentials(&ca, ME);
    for names in [&[b"istio".as_slice()] as &[&[u8]], &[b"h2", b"http/1.1"], &[b"istio-http/1.1", b"istio"], &[]] {
        let peer = RawPeer::presenting(&ca.workload(WEB)).with_alpn(names);
        inbound(&ours, &peer).await.0.unwrap();
    }
}

#[tokio::test]
async fn our_client_offers_istio_and_nothing_else() {
    let ca = ca();
    let ours = credentials(&ca, ME);
    let with = |names: &[&[u8]]| RawPeer::presenting(&ca.workload(WEB)).with_alpn(names);
    let (_, info) = outbound(&ours, &expect(WEB), &with(&[b"istio"])).await.0.unwrap();
    assert!(info.alpn_istio);
    let (_, info) = outbound(&ours, &expect(WEB), &with(&[])).await.0.unwrap();
    assert!(!info.alpn_istio);
    let error = outbound(&ours, &expect(WEB), &with(&[b"h2", b"http/1.1"])).await.0.unwrap_err();
    assert_eq!((error.fault(), error.class()), (HandshakeFault::PeerAlert, "no_application_protocol"));
}

#[tokio::test]
async fn the_server_name_is_sent_only_if_given_and_decides_nothing() {
    let ca = ca();
    let ours = credentials(&ca, ME);
    let istio = Sni::parse("outbound_.8080_._.cart.shop.svc.cluster.local").unwrap();
    for sni in [None, Some(&istio)] {
        let (near, far) = pipe();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(RawPeer::presenting(&ca.workload(WEB)).server()));
        let serve = async { acceptor.accept(far).await.unwrap().get_ref().1.server_name().map(str::to_owned) };
        let expected = expect(WEB);
        let (seen, ours) = tokio::join!(serve, client::connect(near, &ours, &expected, sni));
        assert_eq!(ours.unwrap().1.id, id(WEB));
        assert_eq!(seen.as_deref(), sni.map(|_| "outbound_.8080_._.cart.shop.svc.cluster.local"));
    }
    assert!(Sni::parse("spiffe://example.org/w").is_err() && Sni::parse("").is_err());
}

#[tokio::test]
async fn what_is_not_tls_is_a_protocol_fault() {
    let ours = credentials(&ca(), ME);
    for bytes in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), b"\x16\x03\x01\x00\x05hello", &[0x16; 600]] {
        let (near, mut far) = pipe();
        far.write_all(bytes).await.unwrap();
        let error = server::accept(near, &ours).await.unwrap_err();
        assert_eq!((error.fault(), error.class()), (HandshakeFault::Protocol, "malformed"), "{error}");
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        // rustls leaves the alert out when a handshake message is too long to be one.
        assert!(answer.is_empty() || (answer[0], answer.len()) == (21, 7), "an alert at most, and the end: {answer:?}");
    }
}

#[tokio::test]
async fn going_away_and_giving_up_are_told_apart() {
    let ca = ca();
    let ours = credentials(&ca, ME);
    // Nothing, and half a hello.
    for bytes in [b"".as_slice(), b"\x16\x03\x01\x02\x00\x01\x00"] {
        let (near, mut far) = pipe();
        far.write_all(bytes).await.unwrap();
        drop(far);
        assert_eq!(server::accept(near, &ours).await.unwrap_err().fault(), HandshakeFault::PeerClosed);
    }
    // An alert: fatal, handshake_failure.
    let (near, mut far) = pipe();
    far.write_all(&[21, 3, 3, 0, 2, 2, 40]).await.unwrap();
    let error = client::connect(near, &ours, &expect(WEB), None).await.unwrap_err();
    assert_eq!((error.fault(), error.class()), (HandshakeFault::PeerAlert, "handshake_failure"));
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let ours = credentials(&ca(), ME);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Closing with unread bytes in the buffer makes the kernel send a reset.
        stream.read_exact(&mut [0; 1]).await.unwrap();
    };
    let dial = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        client::connect(stream, &ours, &expect(WEB), None).await.unwrap_err()
    };
    assert_eq!(tokio::join!(peer, dial).1.fault(), HandshakeFault::Reset);
}

/// A client of TLS 1.3 may send its request before it learns that it was refused. What it sent lies unread when we close,
/// so the kernel adds a reset; the alert must come through all the same.
#[tokio::test]
async fn a_refused_client_that_talks_first_gets_its_alert() {
    let ours = credentials(&ca(), ME);
    let stranger = RawPeer::presenting(&Authority::root("stranger.test").workload("spiffe://stranger.test/w"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..50 {
        let accept = async { server::accept(listener.accept().await.unwrap().0, &ours).await.unwrap_err() };
        let dial = async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(stranger.client()));
            let mut stream = connector.connect(ServerName::try_from("x.test").unwrap(), stream).await.unwrap();
            stream.write_all(&[b'x'; 4000]).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await
        };
        let (refused, seen) = tokio::join!(accept, dial);
        assert_eq!(refused.fault(), HandshakeFault::TdMismatch);
        assert_eq!(alert(&seen), Some(AlertDescription::UnknownCA), "{seen:?}");
    }
}

#[test]
fn sslkeylogfile_not_written() {
    // rustls would read the variable once per process, so it takes a process of its own.
    let file = std::env::temp_dir().join(format!("portcullis-keylog-{}", std::process::id()));
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "handshake::negotiates_mlkem_with_self"])
        .env("SSLKEYLOGFILE", &file)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(!file.exists());
}

#[tokio::test]
async fn bundles_of_federated_domains_stay_apart() {
    let (own, partner) = (ca(), Authority::root("partner.test"));
    let me = own.workload(ME);
    let federated = vec![(td("partner.test"), partner.bundle_pem().into())];
    let files = CredentialFiles::new(me.cert_pem().into(), me.key_pem().into(), own.bundle_pem().into(), federated);
    let ours = Arc::new(validate(files, &rules(ME)).unwrap());
    let class = |issued: Issued| {
        let ours = Arc::clone(&ours);
        async move { inbound(&ours, &RawPeer::presenting(&issued)).await.0.map_or_else(|error| error.class(), |_| "valid") }
    };
    assert_eq!(class(partner.workload("spiffe://partner.test/w")).await, "valid");
    assert_eq!(class(partner.workload(WEB)).await, "td-bundle", "the partner's CA forges one of us");
    assert_eq!(class(own.workload("spiffe://partner.test/w")).await, "td-bundle", "our CA forges one of the partner's");
    assert_eq!(class(own.workload("spiffe://stranger.test/w")).await, "td-bundle");
}

#[tokio::test]
async fn a_client_that_remembers_us_gets_no_ticket() {
    // A client with early data on and a session store ends up with nothing to use.
    let ca = ca();
    let ours = credentials(&ca, ME);
    let mut config = RawPeer::presenting(&ca.workload(WEB)).client();
    config.enable_early_data = true;
    for _ in 0..2 {
        let (result, seen) = inbound_config(&ours, config.clone()).await;
        result.unwrap();
        assert_eq!(seen.unwrap(), b"hello");
    }
}

#[test]
fn a_handshake_takes_little_memory_while_it_waits() {
    let ours = credentials(&ca(), ME);
    let expected = expect(WEB);
    let (near, far) = pipe();
    let accept = size_of_val(&server::accept(near, &ours));
    let connect = size_of_val(&client::connect(far, &ours, &expected, None));
    assert!(accept < 8 * 1024, "{accept}");
    assert!(connect < 8 * 1024, "{connect}");
}
