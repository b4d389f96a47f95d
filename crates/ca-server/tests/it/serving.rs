//! A serving CA: the form of its answers, its server identity, reload, limits, metrics, bootstrap tokens, shutdown.

use std::path::Path;
use std::time::Duration;

use portcullis_ca::{Root, TokenKey};
use portcullis_ca_server::{CaServer, status_of};
use portcullis_identity::leaf::{Compat, Role, check};
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_testkit::certs::{self, Profile};
use portcullis_testkit::openssl;
use rcgen::KeyPair;
use tonic::Code;

use crate::support::{CART, Client, Stage, WEB, csr, der, eventually, local_config, now, private, read, registered};

/// `openssl verify` for both purposes.
fn openssl_accepts(answer: &[String], folder: &Path, how: &[&str]) {
    let file = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name).into_os_string().into_string().unwrap()
    };
    let (root, above, leaf) = (file("r.pem", &answer[2]), file("i.pem", &answer[1]), file("l.pem", &answer[0]));
    for purpose in ["sslclient", "sslserver"] {
        let arguments = [how, &["-purpose", purpose, "-CAfile", &root, "-untrusted", &above, &leaf]].concat();
        let said = openssl([&["verify"], arguments.as_slice()].concat(), b"");
        assert!(String::from_utf8(said).unwrap().contains(": OK"));
    }
}

fn fresh() -> String {
    csr(&KeyPair::generate().unwrap())
}

#[tokio::test]
async fn the_answer_is_leaf_intermediates_and_roots_and_openssl_accepts_it() {
    let stage = Stage::start(&registered(&[CART])).await;
    let answer = stage.connect().await.create(&fresh(), Some(&stage.token(CART))).await.unwrap();
    assert_eq!(answer.len(), 3);
    assert!(answer[..2].iter().all(|text| text.matches("BEGIN CERTIFICATE").count() == 1));
    assert_eq!(der(&answer[2]), der(&stage.root.bundle_pem()));
    openssl_accepts(&answer, stage.folder.path(), &[]);
}

#[tokio::test]
async fn the_ca_is_found_by_its_names_and_by_no_other() {
    let stage = Stage::start(&registered(&[CART])).await;
    let roots = stage.root.bundle_pem();
    for name in ["ca.test", "localhost", "127.0.0.1", "::1"] {
        Client::connect_named(stage.address, &roots, None, name)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(Client::connect_named(stage.address, &roots, None, "other.test").await.is_err());
    let stranger = certs::Authority::root("cluster.local").bundle_pem();
    assert!(Client::connect(stage.address, &stranger, None).await.is_err());
}

#[tokio::test]
async fn ca_runs_without_root_key() {
    let folder = tempfile::tempdir().unwrap();
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let roots = {
        // The root and its key are gone when this block ends.
        let root = Root::generate(&domain, Duration::from_secs(3600), &portcullis_tls::Clock::system()).unwrap();
        let intermediate = root.intermediate(Duration::from_secs(1800)).unwrap();
        for (name, content) in [
            ("ca-cert.pem", intermediate.cert_pem()),
            ("ca-key.pem", &intermediate.key_pem()),
            ("cert-chain.pem", intermediate.cert_pem()),
            ("root-cert.pem", root.cert_pem()),
            ("token-key.pem", &TokenKey::generate().unwrap()),
            ("identities.yaml", &registered(&[CART])),
        ] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        root.cert_pem().to_owned()
    };
    let config = local_config(folder.path());
    let authority = crate::support::start(config).await.unwrap();
    let address = authority.address().unwrap();
    let served = tokio::spawn(authority.serve(std::future::pending()));
    let tokens = TokenKey::read(&std::fs::read(folder.path().join("token-key.pem")).unwrap(), &domain).unwrap();
    let id = SpiffeId::parse(CART).unwrap();
    let token = tokens.issue(&id, Duration::from_secs(60), false, now()).unwrap().0;
    let client = Client::connect_named(address, &roots, None, "localhost").await.unwrap();
    let answer = client.create(&fresh(), Some(&token)).await.unwrap();
    assert_eq!(check(&der(&answer[0])[0], Compat::default(), Role::Client).unwrap().id, id);
    openssl_accepts(&answer, folder.path(), &["-x509_strict"]);
    served.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundles_are_handed_out_with_our_own_first_and_what_callers_use_is_noted() {
    let stage = Stage::start(&registered(&[CART])).await;
    let partner = certs::Authority::root("a-partner.test");
    std::fs::write(stage.path("partner.pem"), partner.bundle_pem()).unwrap();
    let text = format!("trustBundles: {{a-partner.test: partner.pem}}\nrefreshHint: 2m\n{}", registered(&[CART]));
    std::fs::write(stage.path("identities.yaml"), text).unwrap();
    let (chain, key) = stage.svid(CART).await;
    let client = stage.connect_as(chain, private(&key)).await;
    eventually("the partner's bundle is handed out", async || {
        client.bundles(None, "x").await.unwrap().bundles.len() == 2
    })
    .await;
    let answer = client.bundles(None, "x").await.unwrap();
    let names: Vec<_> = answer.bundles.iter().map(|bundle| bundle.trust_domain.as_str()).collect();
    assert_eq!((names, answer.refresh_hint_seconds), (vec!["cluster.local", "a-partner.test"], 120));
    assert_eq!(answer.bundles[0].roots, [stage.root.root_der().to_vec()]);
    let status = status_of(stage.folder.path()).unwrap();
    assert_eq!((status.certified, status.on_current_bundles), (1, 0));
    client.bundles(None, &status.bundle_digest).await.unwrap();
    eventually("the digest is noted", async || status_of(stage.folder.path()).unwrap().on_current_bundles == 1).await;
    client.create_with(&fresh(), &stage.token(CART), &"0".repeat(64)).await.unwrap();
    eventually("another digest is noted", async || status_of(stage.folder.path()).unwrap().on_current_bundles == 0)
        .await;
    let stranger = stage.connect().await.bundles(Some(&stage.token(WEB)), "x").await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    stage.connect().await.bundles(Some(&stage.token(CART)), "x").await.unwrap();
    // A federated file alone is watched too.
    let other = certs::Authority::root("a-partner.test");
    std::fs::write(stage.path("partner.pem"), other.bundle_pem()).unwrap();
    eventually("its new root is handed out", async || {
        client.bundles(None, "x").await.unwrap().bundles[1].roots == [other.root_der().to_vec()]
    })
    .await;
}

#[tokio::test]
async fn registrations_are_reloaded_and_a_typo_changes_nothing() {
    let stage = Stage::start(&registered(&[CART])).await;
    let client = stage.connect().await;
    let refused = client.create(&fresh(), Some(&stage.token(WEB))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    std::fs::write(stage.path("identities.yaml"), registered(&[CART, WEB])).unwrap();
    eventually("the new identity is served", async || client.create(&fresh(), Some(&stage.token(WEB))).await.is_ok())
        .await;
    std::fs::write(stage.path("identities.yaml"), "identities: [{idd: x}]\n").unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.create(&fresh(), Some(&stage.token(WEB))).await.unwrap();
    std::fs::write(stage.path("identities.yaml"), registered(&[CART])).unwrap();
    eventually("what is taken out is refused", async || {
        client.create(&fresh(), Some(&stage.token(WEB))).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn another_intermediate_is_taken_up_and_a_wrong_one_is_not() {
    let stage = Stage::start(&registered(&[CART])).await;
    let issuer = async || {
        let answer = stage.connect().await.create(&fresh(), Some(&stage.token(CART))).await.unwrap();
        String::from_utf8(openssl(["x509", "-noout", "-issuer"], answer[0].as_bytes())).unwrap()
    };
    assert!(issuer().await.contains("CN = issuing"));
    // Its key is still the old one: the pair does not match.
    let next = stage.root.issue(&Profile::authority("cluster.local", "CN=second"));
    std::fs::write(stage.path("ca-cert.pem"), next.cert_pem()).unwrap();
    std::fs::write(stage.path("cert-chain.pem"), next.cert_pem()).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(issuer().await.contains("CN = issuing"));
    std::fs::write(stage.path("ca-key.pem"), next.key_pem()).unwrap();
    eventually("the second one signs", async || issuer().await.contains("CN = second")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn csr_flood_does_not_starve_others() {
    let text = format!("limits: {{perIdentityPerMinute: 5}}\n{}", registered(&[CART, WEB]));
    let stage = Stage::start(&text).await;
    let (chain, key) = stage.svid(CART).await;
    let flood = stage.connect_as(chain, private(&key)).await;
    // Only then the client knows how many requests it may have under way.
    flood.create(&fresh(), None).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let client = flood.clone();
        tasks.spawn(async move { client.create(&fresh(), None).await });
    }
    // In the middle of it another one is served.
    let client = stage.connect().await;
    for _ in 0..3 {
        client.create(&fresh(), Some(&stage.token(WEB))).await.unwrap();
    }
    let results = tasks.join_all().await;
    // Five a minute, two of them before; one more comes every twelve seconds.
    let served = results.iter().filter(|result| result.is_ok()).count();
    assert!((3..20).contains(&served), "{served} of 300 were served");
    for refused in results.into_iter().filter_map(Result::err) {
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        let wait: u64 = refused.metadata().get("retry-after").unwrap().to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
}

#[tokio::test]
async fn metrics_have_the_names_of_istios_ca_and_readiness_is_served() {
    let stage = Stage::start(&registered(&[CART])).await;
    let client = stage.connect().await;
    client.create(&fresh(), Some(&stage.token(CART))).await.unwrap();
    client.create("x", Some(&stage.token(CART))).await.unwrap_err();
    client.create(&fresh(), None).await.unwrap_err();
    client.create(&fresh(), Some(&stage.token(WEB))).await.unwrap_err();
    let page = stage.scrape("/metrics").await;
    for line in [
        "citadel_server_csr_count 4",
        "citadel_server_success_cert_issuance_count 1",
        "citadel_server_csr_parsing_err_count 1",
        "citadel_server_authentication_failure_count 1",
        "citadel_server_id_extraction_err_count 1",
        "citadel_server_root_cert_expiry_timestamp 1",
        "citadel_server_cert_chain_expiry_timestamp 1",
        "citadel_server_root_cert_expiry_seconds ",
        "citadel_server_cert_chain_expiry_seconds ",
    ] {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line} is not in\n{page}");
    }
    assert!(stage.scrape("/healthz/ready").await.starts_with("HTTP/1.1 200"));
    assert!(stage.scrape("/x").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_line_is_written_for_each_certificate_and_no_secret_in_it() {
    let stage = Stage::start(&registered(&[CART])).await;
    let token = stage.token(CART);
    let answer = stage.connect().await.create(&fresh(), Some(&token)).await.unwrap();
    let audit = stage.audit();
    let serial = openssl(["x509", "-noout", "-serial"], answer[0].as_bytes());
    let serial = String::from_utf8(serial).unwrap().trim().trim_start_matches("serial=").to_lowercase();
    for part in [r#""event":"issued""#, CART, &serial, r#""by":"token""#, r#""notAfter":"20"#, r#""keySha256":""#] {
        assert!(audit.contains(part), "{part} is not in {audit}");
    }
    let secret = token.rsplit('.').next().unwrap();
    assert!(!audit.contains(secret) && !audit.contains("PRIVATE"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(stage.path("audit.jsonl")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn fresh_tokens_lie_ready_and_are_replaced_when_they_have_served() {
    let root = certs::Authority::root("cluster.local");
    let out = tempfile::tempdir().unwrap();
    let profile = Profile::authority("cluster.local", "CN=issuing");
    let stage = Stage::start_with(&registered(&[CART]), root, profile, Some(out.path().to_owned())).await;
    let (token, roots) = (out.path().join("shop/cart/token"), out.path().join("shop/cart/root-cert.pem"));
    let mut last = String::new();
    for _ in 0..3 {
        eventually("another token lies ready", async || read(&token).is_some_and(|text| text != last)).await;
        last = read(&token).unwrap();
        let client = Client::connect(stage.address, &read(&roots).unwrap(), None).await.unwrap();
        client.create(&fresh(), Some(&last)).await.unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&token).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(stage.path("identities.yaml"), registered(&[CART, WEB])).unwrap();
    eventually("a new identity has one too", async || out.path().join("shop/web/token").exists()).await;
    std::fs::write(stage.path("identities.yaml"), registered(&[WEB])).unwrap();
    eventually("one that is taken out has none", async || !token.exists()).await;
}

#[tokio::test]
async fn two_cas_on_one_folder_are_one_too_many_and_the_end_is_clean() {
    let mut stage = Stage::start(&registered(&[CART])).await;
    let config = local_config(stage.folder.path());
    let error = CaServer::start(config).await.unwrap_err().to_string();
    assert!(error.contains("another CA runs on this folder"), "{error}");
    let client = stage.connect().await;
    client.create(&fresh(), Some(&stage.token(CART))).await.unwrap();
    stage.stop().await;
    assert!(!stage.path("ca.sock").exists());
    assert!(client.create(&fresh(), Some(&stage.token(CART))).await.is_err());
}

#[tokio::test]
async fn a_world_writable_key_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut stage = Stage::start(&registered(&[CART])).await;
    stage.stop().await;
    for name in ["token-key.pem", "ca-key.pem"] {
        let mode = |mode| std::fs::set_permissions(stage.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o602);
        let config = local_config(stage.folder.path());
        let error = crate::support::start(config).await.unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: everybody may write it")), "{error}");
        mode(0o600);
    }
}

#[tokio::test]
async fn a_source_that_keeps_failing_is_refused_and_others_are_served() {
    let stage = Stage::start(&registered(&[CART])).await;
    let (roots, request) = (stage.root.bundle_pem(), fresh());
    let wrong = Client::connect_from([127, 0, 0, 2], stage.address, &roots).await.unwrap();
    let mut codes = Vec::new();
    // Sixty at once, and five a second from then on.
    while codes.last() != Some(&Code::ResourceExhausted) && codes.len() < 5_000 {
        codes.push(wrong.create(&request, Some("x")).await.unwrap_err().code());
    }
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted));
    assert!(codes.len() > 60 && codes[..60].iter().all(|code| *code == Code::Unauthenticated), "{codes:?}");
    stage.connect().await.create(&fresh(), Some(&stage.token(CART))).await.unwrap();
}

#[tokio::test]
async fn silent_and_invalid_connections_do_no_harm() {
    let stage = Stage::start(&registered(&[CART])).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(tokio::net::TcpStream::connect(stage.address).await.unwrap());
    }
    stage.connect().await.create(&fresh(), Some(&stage.token(CART))).await.unwrap();
}
