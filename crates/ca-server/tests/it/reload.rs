//! Files that change in the folder of a running CA: a chain, another CA, another key for tokens.

use std::fs;
use std::time::Duration;

use portcullis_ca::TokenKey;
use portcullis_testkit::certs::{self, Profile};
use portcullis_testkit::openssl;
use rcgen::KeyPair;
use tonic::Code;

use crate::support::{CART, Client, Stage, csr, der, eventually, read, registered};

fn fresh() -> String {
    csr(&KeyPair::generate().unwrap())
}

async fn answer(stage: &Stage) -> Vec<String> {
    stage.connect().await.create(&fresh(), Some(&stage.token(CART))).await.unwrap()
}

fn issuer(answer: &[String]) -> String {
    String::from_utf8(openssl(["x509", "-noout", "-issuer"], answer[0].as_bytes())).unwrap()
}

/// The files of a CA two steps below the root: `ca-cert.pem`, `ca-key.pem`, and what belongs between it and the root.
fn two_below(root: &certs::Authority, name: &str) -> [String; 3] {
    let profile = |name: &str| Profile::authority("cluster.local", &format!("CN={name}"));
    let issuing = root.below(&profile("above")).below(&profile(name));
    let chain = issuing.workload(CART).chain;
    [crate::support::pem(&chain[1]), issuing.key_pem(), crate::support::pem(&chain[2])]
}

/// An operator who plugs in a CA puts four files one after the other; in between nothing fits, and the old ones stay in force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_is_plugged_in_with_a_chain_that_was_not_there_is_taken_up() {
    let stage = Stage::start(&registered(&[CART])).await;
    // Right below the root no chain is needed, and it may go while the CA runs.
    fs::remove_file(stage.path("cert-chain.pem")).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(issuer(&answer(&stage).await).contains("CN = issuing"));

    let [cert, key, above] = two_below(&stage.root, "plugged");
    fs::write(stage.path("ca-key.pem"), &key).unwrap();
    fs::write(stage.path("ca-cert.pem"), &cert).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(issuer(&answer(&stage).await).contains("CN = issuing"), "without its chain it leads to no root");
    fs::write(stage.path("cert-chain.pem"), &above).unwrap();
    eventually("the plugged-in CA signs", async || issuer(&answer(&stage).await).contains("CN = plugged")).await;
    let answer = answer(&stage).await;
    assert_eq!(answer.len(), 4, "leaf, two intermediates, the root");
    assert_eq!(der(&answer[2]), der(&above));

    // Another root as well: all four at once, as a volume that is swapped has them.
    let root = certs::Authority::root("cluster.local");
    let [cert, key, above] = two_below(&root, "elsewhere");
    for (name, content) in [
        ("root-cert.pem", &root.bundle_pem()),
        ("ca-cert.pem", &cert),
        ("ca-key.pem", &key),
        ("cert-chain.pem", &above),
    ] {
        fs::write(stage.path(name), content).unwrap();
    }
    eventually("the CA of the other root signs, and is found by it", async || {
        let Ok(client) = Client::connect(stage.address, &root.bundle_pem(), None).await else { return false };
        let answer = client.create(&fresh(), Some(&stage.token(CART))).await.unwrap();
        issuer(&answer).contains("CN = elsewhere") && der(answer.last().unwrap()) == der(&root.bundle_pem())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_token_key_ends_the_tokens_of_the_old_one_and_new_ones_lie_ready() {
    let (root, out) = (certs::Authority::root("cluster.local"), tempfile::tempdir().unwrap());
    let profile = Profile::authority("cluster.local", "CN=issuing");
    let stage = Stage::start_with(&registered(&[CART]), root, profile, Some(out.path().to_owned())).await;
    let place = out.path().join("shop/cart/token");
    eventually("a token lies ready", async || place.exists()).await;
    let (old, lying) = (stage.token(CART), read(&place).unwrap());
    let client = stage.connect().await;

    // An invalid or world-writable key file changes nothing.
    fs::write(stage.path("token-key.pem"), "half a k").unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.create(&fresh(), Some(&old)).await.unwrap();

    let draft = stage.path("draft");
    fs::write(&draft, TokenKey::generate().unwrap().as_bytes()).unwrap();
    fs::rename(&draft, stage.path("token-key.pem")).unwrap();
    eventually("another token lies ready", async || read(&place).is_some_and(|text| text != lying)).await;
    let refused = client.create(&fresh(), Some(&lying)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(stage.audit().contains("token-signature"), "{}", stage.audit());
    client.create(&fresh(), Some(&read(&place).unwrap())).await.unwrap();
    client.create(&fresh(), Some(&stage.token(CART))).await.unwrap();
}
