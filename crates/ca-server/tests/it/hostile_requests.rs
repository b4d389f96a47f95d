//! Requests, tokens and certificates that lie, against a real CA over a real socket.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis_ca::TokenKey;
use portcullis_identity::leaf::{Compat, Role, check};
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_testkit::certs::{self, Profile};
use portcullis_testkit::{Key, KeyKind, openssl};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use tonic::Code;

use crate::support::{CART, Stage, WEB, csr, der, now, private, registered};

/// Sends a request with extra requested attributes, and returns the issued leaf.
async fn leaf_for(change: impl FnOnce(&mut CertificateParams)) -> portcullis_identity::leaf::Leaf {
    let stage = Stage::start(&registered(&[CART, WEB])).await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    change(&mut params);
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let answer = stage.connect().await.create(&csr, Some(&stage.token(CART))).await.unwrap();
    let leaf = der(&answer[0]).remove(0);
    let text = String::from_utf8(openssl(["x509", "-noout", "-text"], answer[0].as_bytes())).unwrap();
    for part in [
        "Subject: \n",
        "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/shop/sa/cart\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert_eq!(text.matches("            X509v3 ").count(), 6, "{text}");
    check(&leaf, Compat::default(), Role::Server).unwrap()
}

fn uri(id: &str) -> SanType {
    SanType::URI(Ia5String::try_from(id).unwrap())
}

#[tokio::test]
async fn csr_asking_other_id_gets_own_id() {
    let leaf = leaf_for(|params| params.subject_alt_names = vec![uri(WEB)]).await;
    assert_eq!(leaf.id.as_str(), CART);
}

#[tokio::test]
async fn csr_with_ca_true() {
    let change = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    };
    assert_eq!(leaf_for(change).await.id.as_str(), CART);
}

#[tokio::test]
async fn csr_with_extra_san() {
    let dns = |name: &str| SanType::DnsName(Ia5String::try_from(name).unwrap());
    let change = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![uri(CART), uri(WEB), dns("ca.test"), SanType::IpAddress([127, 0, 0, 1].into())];
    };
    assert_eq!(leaf_for(change).await.id.as_str(), CART);
}

#[tokio::test]
async fn csr_comma_in_name() {
    let change = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, format!("cart,URI:{WEB},DNS:ca.test"));
        params.subject_alt_names = vec![uri(&format!("{CART},URI:{WEB}"))];
    };
    assert_eq!(leaf_for(change).await.id.as_str(), CART);
}

#[tokio::test]
async fn csr_bad_signature() {
    let stage = Stage::start(&registered(&[CART])).await;
    let (client, token) = (stage.connect().await, stage.token(CART));
    let own = KeyPair::generate().unwrap();
    // The last bytes are the signature's.
    let file = csr(&own);
    let mut request = openssl(["req", "-outform", "DER"], file.as_bytes());
    let last = request.len() - 1;
    request[last] ^= 1;
    let file = String::from_utf8(openssl(["base64"], &request)).unwrap();
    let lying = format!("-----BEGIN CERTIFICATE REQUEST-----\n{file}-----END CERTIFICATE REQUEST-----\n");
    let refused = client.create(&lying, Some(&token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(stage.audit().contains(r#""reason":"csr-signature""#), "{}", stage.audit());
    // The token has not served by that.
    client.create(&csr(&own), Some(&token)).await.unwrap();
}

#[tokio::test]
async fn csr_rsa1024() {
    let stage = Stage::start(&registered(&[CART])).await;
    let file = stage.path("weak.pem");
    std::fs::write(&file, Key::new(KeyKind::Rsa1024).pem()).unwrap();
    let weak = openssl(["req", "-new", "-key", file.to_str().unwrap(), "-subj", "/CN=x"], b"");
    let weak = String::from_utf8(weak).unwrap();
    let refused = stage.connect().await.create(&weak, Some(&stage.token(CART))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(stage.audit().contains(r#""reason":"weak-key""#));
}

#[tokio::test]
async fn a_key_type_that_the_registration_does_not_have_is_refused() {
    let stage = Stage::start(&format!("identities:\n- id: {CART}\n  keyTypes: [ecdsa-p384]\n")).await;
    let client = stage.connect().await;
    let p256 = client.create(&csr(&KeyPair::generate().unwrap()), Some(&stage.token(CART))).await.unwrap_err();
    assert_eq!(p256.code(), Code::InvalidArgument);
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    client.create(&csr(&p384), Some(&stage.token(CART))).await.unwrap();
}

#[tokio::test]
async fn token_for_a_cannot_get_b() {
    let stage = Stage::start(&registered(&[CART, WEB])).await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(WEB)];
    let requested = params.serialize_request(&key).unwrap().pem().unwrap();
    let answer = stage.connect().await.create(&requested, Some(&stage.token(CART))).await.unwrap();
    assert_eq!(check(&der(&answer[0])[0], Compat::default(), Role::Client).unwrap().id.as_str(), CART);
    // With a certificate of one and the token of another it gets neither.
    let (chain, key) = stage.svid(CART).await;
    let both = stage.connect_as(chain, private(&key)).await;
    let refused = both.create(&csr(&KeyPair::generate().unwrap()), Some(&stage.token(WEB))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(stage.audit().contains(r#""reason":"two-identities""#));
}

#[tokio::test]
async fn token_replay_refused() {
    let mut stage = Stage::start(&registered(&[CART])).await;
    let token = stage.token(CART);
    let fresh = || csr(&KeyPair::generate().unwrap());
    stage.connect().await.create(&fresh(), Some(&token)).await.unwrap();
    let refused = stage.connect().await.create(&fresh(), Some(&token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(!refused.message().contains("used"), "the reason is not revealed: {}", refused.message());
    stage.restart().await;
    let refused = stage.connect().await.create(&fresh(), Some(&token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "not after a restart either");
    let whose = format!(r#""id":"{CART}","reason":"token-used""#);
    assert_eq!(stage.audit().matches(&whose).count(), 2, "{}", stage.audit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_from_twenty_sides_gives_one_certificate() {
    let stage = Stage::start(&registered(&[CART])).await;
    let token = stage.token(CART);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, token) = (stage.connect().await, token.clone());
        let csr = csr(&KeyPair::generate().unwrap());
        tasks.spawn(async move { client.create(&csr, Some(&token)).await.map_err(|status| status.code()) });
    }
    let results = tasks.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| !matches!(result, Err(code) if *code != Code::Unauthenticated)), "{results:?}");
    assert_eq!(stage.audit().matches(r#""event":"issued""#).count(), 1);
}

#[tokio::test]
async fn a_reusable_token_serves_again() {
    let stage = Stage::start(&registered(&[CART])).await;
    let id = SpiffeId::parse(CART).unwrap();
    let (token, _) = stage.tokens().issue(&id, Duration::from_secs(60), true, now()).unwrap();
    let client = stage.connect().await;
    for _ in 0..3 {
        client.create(&csr(&KeyPair::generate().unwrap()), Some(&token)).await.unwrap();
    }
}

#[tokio::test]
async fn every_other_token_is_refused() {
    let stage = Stage::start(&registered(&[CART])).await;
    let (keys, client) = (stage.tokens(), stage.connect().await);
    let id = |id: &str| SpiffeId::parse(id).unwrap();
    let minute = Duration::from_secs(60);
    let other_domain = TrustDomain::parse("other.local").unwrap();
    let own_key = std::fs::read(stage.path("token-key.pem")).unwrap();
    let stranger =
        TokenKey::read(TokenKey::generate().unwrap().as_bytes(), &TrustDomain::parse("cluster.local").unwrap());
    let other_issuer = TokenKey::read(&own_key, &other_domain).unwrap();
    // Claims of the test's choice, signed with the CA's own key.
    let pair = KeyPair::from_pem(std::str::from_utf8(&own_key).unwrap()).unwrap();
    let signed = |algorithm, key: &EncodingKey, name: &str, value: serde_json::Value| {
        let mut claims = serde_json::json!({
            "iss": "portcullis-ca:cluster.local", "sub": CART, "aud": "istio-ca", "iat": now(), "exp": now() + 60,
            "jti": "0123456789abcdef".repeat(2),
        });
        claims[name] = value;
        jsonwebtoken::encode(&Header::new(algorithm), &claims, key).unwrap()
    };
    let own = EncodingKey::from_ec_der(&pair.serialize_der());
    let public = EncodingKey::from_secret(rcgen::PublicKeyData::der_bytes(&pair));
    let good = stage.token(CART);
    let body = good.split('.').nth(1).unwrap();
    for (token, reason) in [
        (keys.issue(&id(CART), minute, false, now() - 3600).unwrap().0, "token-expired"),
        (keys.issue(&id(CART), minute, false, now() + 3600).unwrap().0, "token-not-yet-valid"),
        (keys.issue(&id(WEB), minute, false, now()).unwrap().0, "not-registered"),
        (stranger.unwrap().issue(&id(CART), minute, false, now()).unwrap().0, "token-signature"),
        (other_issuer.issue(&id(CART), minute, false, now()).unwrap().0, "token-issuer"),
        // {"alg":"none","typ":"JWT"}
        (format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}."), "token-"),
        (signed(Algorithm::ES256, &own, "aud", "istiod".into()), "token-audience"),
        (signed(Algorithm::ES256, &own, "exp", serde_json::Value::Null), "token-malformed"),
        (signed(Algorithm::ES256, &own, "sub", "cart".into()), "token-subject"),
        (signed(Algorithm::HS256, &public, "aud", "istio-ca".into()), "token-algorithm"),
        ("x".to_owned(), "token-malformed"),
    ] {
        let before = stage.audit().len();
        let refused = client.create(&csr(&KeyPair::generate().unwrap()), Some(&token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{reason}");
        let audit = stage.audit();
        assert!(audit[before..].contains(&format!(r#""reason":"{reason}"#)), "{reason} is not in {}", &audit[before..]);
        assert!(!audit.contains(&token) || token.len() == 1, "a token is in the audit");
    }
    let refused = client.create(&csr(&KeyPair::generate().unwrap()), None).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(client.bundles(None, "").await.unwrap_err().code(), Code::Unauthenticated);
    // The same claims, as they should be, are served.
    let right = signed(Algorithm::ES256, &own, "aud", "istio-ca".into());
    client.create(&csr(&KeyPair::generate().unwrap()), Some(&right)).await.unwrap();
    client.create(&csr(&KeyPair::generate().unwrap()), Some(&good)).await.unwrap();
}

#[tokio::test]
async fn a_key_that_another_identity_holds_is_refused_also_after_a_restart() {
    let mut stage = Stage::start(&registered(&[CART, WEB])).await;
    let key = KeyPair::generate().unwrap();
    stage.connect().await.create(&csr(&key), Some(&stage.token(CART))).await.unwrap();
    stage.restart().await;
    let client = stage.connect().await;
    let refused = client.create(&csr(&key), Some(&stage.token(WEB))).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    client.create(&csr(&key), Some(&stage.token(CART))).await.unwrap();
}

#[tokio::test]
async fn a_certificate_renews_itself_and_no_other() {
    let stage = Stage::start(&registered(&[CART])).await;
    let (chain, key) = stage.svid(CART).await;
    let client = stage.connect_as(chain, private(&key)).await;
    let answer = client.create(&csr(&KeyPair::generate().unwrap()), None).await.unwrap();
    assert_eq!(check(&der(&answer[0])[0], Compat::default(), Role::Client).unwrap().id.as_str(), CART);
    assert!(stage.audit().contains(r#""by":"svid""#));
}

#[tokio::test]
async fn expired_svid_cannot_renew() {
    let stage = Stage::start(&registered(&[CART])).await;
    let mesh = stage.issuing.clone();
    let stranger = certs::Authority::root("cluster.local");
    for (issued, reason) in [
        (mesh.issue(&Profile::leaf(CART).valid(now() - 7200, now() - 60)), "expired"),
        (mesh.issue(&Profile::leaf(CART).valid(now() + 60, now() + 7200)), "not-yet-valid"),
        (stranger.issue(&Profile::leaf(CART)), "bad-signature"),
        (certs::self_signed_leaf(&Profile::leaf(CART)), "unknown-issuer"),
        (mesh.issue(&Profile::leaf("spiffe://other.local/ns/shop/sa/cart")), "td-bundle"),
    ] {
        let before = stage.audit().len();
        let client = stage.connect_as(issued.chain.clone(), issued.key.der()).await;
        let refused = client.create(&csr(&KeyPair::generate().unwrap()), None).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{reason}");
        assert!(stage.audit()[before..].contains(&format!(r#""reason":"{reason}""#)), "{reason}: {}", stage.audit());
        // Nor does a good token make up for it.
        let refused = client.create(&csr(&KeyPair::generate().unwrap()), Some(&stage.token(CART))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{reason}");
    }
    let issued = mesh.issue(&Profile::leaf(WEB));
    let client = stage.connect_as(issued.chain, issued.key.der()).await;
    let refused = client.create(&csr(&KeyPair::generate().unwrap()), None).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "a good certificate of one that is not registered any more");
}

#[tokio::test]
async fn ttl_never_outlives_issuer() {
    let root = certs::Authority::root("cluster.local");
    let issuing = Profile::authority("cluster.local", "CN=issuing").valid(now() - 60, now() + 900);
    let stage = Stage::start_with(&registered(&[CART]), root, issuing, None).await;
    let client = stage.connect().await;
    for (asked, longest) in [(0, 900), (i64::MAX, 900), (-1, 900), (300, 300), (1, 60)] {
        let key = KeyPair::generate().unwrap();
        let answer = client.create_for(&csr(&key), Some(&stage.token(CART)), asked).await.unwrap();
        let leaf = check(&der(&answer[0])[0], Compat::default(), Role::Client).unwrap();
        let left = leaf.not_after_unix - now();
        assert!((longest - 30..=longest).contains(&left), "{asked}: {left}");
    }
}
