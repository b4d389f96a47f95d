//! The configurations themselves: what no handshake shows, or shows only when it is too late.

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::Authority;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::verifier::{Expect, PeerVerifier};

const ME: &str = "spiffe://example.org/ns/default/sa/me";

fn credentials(min_version: MinVersion) -> Arc<Credentials> {
    credentials_of(&Authority::root("example.org"), min_version)
}

fn credentials_of(ca: &Authority, min_version: MinVersion) -> Arc<Credentials> {
    let own = ca.workload(ME);
    let rules = IdentityRules {
        trust_domain: TrustDomain::parse("example.org").unwrap(),
        aliases: Vec::new(),
        expected_own_id: SpiffeId::parse(ME).unwrap(),
        compat: Compat::default(),
        min_version,
    };
    let files = CredentialFiles::new(own.cert_pem().into(), own.key_pem().into(), ca.bundle_pem().into(), Vec::new());
    Arc::new(Credentials::validate(files, &rules, &Clock::system()).unwrap())
}

fn verifier(credentials: &Arc<Credentials>) -> Arc<PeerVerifier> {
    Arc::new(PeerVerifier::new(Arc::clone(credentials), Expect::AnyWorkload))
}

#[test]
fn the_server_stores_nothing_and_requires_a_certificate() {
    for min_version in [MinVersion::Tls13, MinVersion::Tls12] {
        let credentials = credentials(min_version);
        let config = credentials.server_config(verifier(&credentials), Arc::default(), &[]).unwrap();
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.send_half_rtt_data && !config.ticketer.enabled());
        assert!(!config.session_storage.can_cache());
        assert!(!config.session_storage.put(b"id".to_vec(), b"session".to_vec()));
        assert!(config.alpn_protocols.is_empty());
        // What the record layer goes on with, and nothing else.
        for label in
            ["CLIENT_RANDOM", "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "EXPORTER_SECRET"]
        {
            assert!(!config.key_log.will_log(label), "{label}");
        }
    }
    let verifier = verifier(&credentials(MinVersion::Tls13));
    assert!(verifier.client_auth_mandatory() && verifier.offer_client_auth());
    assert!(ClientCertVerifier::root_hint_subjects(&*verifier).is_empty());
    assert!(!ServerCertVerifier::requires_raw_public_keys(&*verifier));
}

#[test]
fn the_client_sends_no_early_data_and_no_name_unless_configured() {
    let credentials = credentials(MinVersion::Tls13);
    for send_sni in [false, true] {
        let config = credentials.client_config(verifier(&credentials), Arc::default(), send_sni);
        assert!(!config.enable_early_data);
        assert_eq!(config.enable_sni, send_sni);
        assert_eq!(config.alpn_protocols, [b"istio".to_vec()]);
        // What the record layer goes on with, and nothing else.
        for label in
            ["CLIENT_RANDOM", "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "EXPORTER_SECRET"]
        {
            assert!(!config.key_log.will_log(label), "{label}");
        }
    }
}

/// Each connection has a configuration of its own, so there would be nothing to resume from anyway. Were it shared one day,
/// this must still hold: used twice, it makes two full handshakes, and the second one is refused by the verifier that has
/// already given its verdict. A resumed one would not ask it.
#[tokio::test]
async fn a_client_configuration_used_twice_resumes_nothing() {
    let ca = Authority::root("example.org");
    let credentials = credentials_of(&ca, MinVersion::Tls13);
    let config = Arc::new(credentials.client_config(verifier(&credentials), Arc::default(), false));
    let server = RawPeer::presenting(&ca.workload("spiffe://example.org/ns/default/sa/web")).server();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serve = async {
            let mut stream = acceptor.accept(far).await?;
            stream.write_all(b"with the tickets").await?;
            stream.shutdown().await
        };
        let dial = async {
            let name = rustls_pki_types::ServerName::try_from("web.test").unwrap();
            let mut stream = tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name, near).await?;
            stream.read_to_end(&mut Vec::new()).await
        };
        outcomes.push(tokio::join!(dial, serve).0.is_ok());
    }
    assert_eq!(outcomes, [true, false]);
}

#[test]
fn groups_and_signatures_are_the_listed_ones() {
    let provider = provider();
    let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name().as_str().unwrap()).collect();
    assert_eq!(groups, ["X25519MLKEM768", "X25519", "secp256r1", "secp384r1"]);
    assert_eq!(provider.signature_verification_algorithms.supported_schemes().len(), 9);
    assert!(Arc::ptr_eq(&provider, &super::provider()), "there is one");
}

#[test]
fn a_verifier_gives_one_verdict() {
    let ca = Authority::root("example.org");
    let own = ca.workload(ME);
    let credentials = credentials(MinVersion::Tls13);
    let verifier = verifier(&credentials);
    let chain = own.chain.first().unwrap();
    let now = UnixTime::now();
    let first = verifier.verify_client_cert(chain, &[], now).unwrap_err();
    let second = verifier.verify_client_cert(chain, &[], now).unwrap_err();
    assert!(matches!(first, rustls::Error::InvalidCertificate(_)));
    let again = rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure);
    assert_eq!(second, again);
}
