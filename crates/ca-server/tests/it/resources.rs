//! IstioOperator documents in the CA's folder: extra roots and lifetimes, as callers meet them.

use portcullis_ca_server::status_of;
use portcullis_identity::leaf::{Compat, Role, check};
use portcullis_testkit::certs::{Authority, Profile};
use rcgen::KeyPair;
use tonic::Code;

use crate::support::{CART, Stage, WEB, csr, der, eventually, local_config, private, registered};

fn operator(mesh: &str) -> String {
    format!("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  meshConfig:\n{mesh}")
}

fn roots(pem: &str) -> String {
    let lines: String = pem.lines().map(|line| format!("        {line}\n")).collect();
    operator(&format!("    caCertificates:\n    - pem: |\n{lines}"))
}

fn external() -> Authority {
    Authority::self_signed(&Profile { sans: None, ..Profile::authority("cluster.local", "CN=external") })
}

fn fresh() -> String {
    csr(&KeyPair::generate().unwrap())
}

/// Writes a resource, and waits until so many extra roots are in force.
async fn put(stage: &Stage, text: &str, count: usize) {
    std::fs::write(stage.path("draft"), text).unwrap();
    std::fs::rename(stage.path("draft"), stage.path("mesh.yaml")).unwrap();
    extra_roots(stage, count).await;
}

async fn extra_roots(stage: &Stage, count: usize) {
    eventually("extra roots", async || status_of(stage.folder.path()).unwrap().extra_roots == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extra_roots_are_handed_out_and_authenticate_no_caller() {
    let (stage, external) = (Stage::start(&registered(&[CART])).await, external());
    let before = status_of(stage.folder.path()).unwrap().bundle_digest;
    put(&stage, &roots(&external.bundle_pem()), 1).await;
    let after = status_of(stage.folder.path()).unwrap().bundle_digest;
    assert_ne!(before, after, "who uses the old bundles is not on the current ones");

    let (chain, key) = stage.svid(CART).await;
    let answer = stage.connect_as(chain, private(&key)).await.bundles(None, &after).await.unwrap();
    assert_eq!(answer.bundles.len(), 1);
    assert_eq!(answer.bundles[0].roots, [stage.root.root_der().to_vec(), external.root_der().to_vec()]);
    eventually("it is known who uses them", async || status_of(stage.folder.path()).unwrap().on_current_bundles == 1)
        .await;
    // Istio's agents take the last text for their roots.
    let answer = stage.connect().await.create(&fresh(), Some(&stage.token(CART))).await.unwrap();
    assert_eq!(der(answer.last().unwrap()), der(&(stage.root.bundle_pem() + &external.bundle_pem())));

    let thief = external.workload(CART);
    let client = stage.connect_as(thief.chain.clone(), thief.key.der()).await;
    for token in [None, Some(stage.token(CART))] {
        let refused = client.create(&fresh(), token.as_deref()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}");
    }
    assert!(stage.audit().contains(r#""reason":"unknown-issuer""#), "{}", stage.audit());

    // A set with a mistake leaves the last good one in force.
    std::fs::write(stage.path("other.yaml"), roots("-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----"))
        .unwrap();
    std::fs::write(stage.path("mesh.yaml"), operator("    certificates: {workloadCertTTL: 1h}\n")).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(status_of(stage.folder.path()).unwrap().extra_roots, 1);
    std::fs::remove_file(stage.path("other.yaml")).unwrap();
    extra_roots(&stage, 0).await;
}

/// Seconds of life of a new certificate.
async fn life(stage: &Stage, id: &str, asked: i64) -> i64 {
    let answer = stage.connect().await.create_for(&fresh(), Some(&stage.token(id)), asked).await.unwrap();
    let leaf = check(&der(&answer[0])[0], Compat::default(), Role::Client).unwrap();
    leaf.not_after_unix - leaf.not_before_unix - 60
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lifetimes_hold_from_the_next_certificate_on_where_the_registrations_say_none() {
    let text = format!("identities:\n- id: {CART}\n- id: {WEB}\n  ttl: 10m\n");
    let stage = Stage::start(&text).await;
    assert_eq!((life(&stage, CART, 0).await, life(&stage, WEB, 0).await), (24 * 3600, 600));
    // One root beside it tells when it is in force.
    let extra = roots(&external().bundle_pem());
    put(&stage, &format!("{extra}    certificates: {{secretTTL: 24h, workloadCertTTL: 1h30m}}\n"), 1).await;
    assert_eq!((life(&stage, CART, 0).await, life(&stage, WEB, 0).await), (5400, 600));
    assert_eq!(life(&stage, CART, 7200).await, 7200, "who asks is asked for less only by a maximum");
    put(&stage, &operator("    certificates: {workloadCertTTL: 1s}\n"), 0).await;
    assert_eq!(life(&stage, CART, 0).await, 60);
}

/// A CA that starts with a set that cannot be used has no last good one.
#[tokio::test]
async fn a_mistake_at_startup_is_reported_with_its_position() {
    let mut stage = Stage::start(&registered(&[CART])).await;
    stage.stop().await;
    std::fs::write(stage.path("mesh.yaml"), operator("    certificates: {secretTTL: 1d}\n")).unwrap();
    let config = local_config(stage.folder.path());
    let why = crate::support::start(config).await.unwrap_err().to_string();
    assert!(why.contains("mesh.yaml:5:31: spec.meshConfig.certificates.secretTTL: \"1d\" is not a lifetime"), "{why}");
}
