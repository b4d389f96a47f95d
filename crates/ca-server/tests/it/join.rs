//! Hosts that join: what a token is good for, how often, how long, and what a caller learns.

use portcullis_ca_server::{JoinTokenAnswer, JoinTokenRequest, NewJoinToken, join_token};
use portcullis_rpc::bundles::join_client::JoinClient;
use portcullis_rpc::bundles::{JoinRequest, JoinResponse, RenewTokenRequest};
use rcgen::KeyPair;
use tonic::{Code, Request, Status};

use crate::support::{CART, Client, Stage, WEB, csr, eventually, private, registered};

const DB: &str = "spiffe://cluster.local/ns/shop/sa/db";

async fn ask(stage: &Stage, request: JoinTokenRequest) -> JoinTokenAnswer {
    let dir = stage.folder.path().to_owned();
    // It blocks, and the CA answers on this thread.
    tokio::task::spawn_blocking(move || join_token(&dir, &request)).await.unwrap().unwrap()
}

async fn created(stage: &Stage, ids: &[&str], uses: u32, ttl_seconds: u32) -> NewJoinToken {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    match ask(stage, JoinTokenRequest::Create { ids, uses, ttl_seconds }).await {
        JoinTokenAnswer::Created(new) => new,
        _ => panic!("no token was made"),
    }
}

async fn join(stage: &Stage, token: &str, ids: &[&str]) -> Result<JoinResponse, Status> {
    let mut client = JoinClient::with_origin(stage.connect().await, "https://ca.test".parse().unwrap());
    let mut request = Request::new(JoinRequest { ids: ids.iter().map(|id| (*id).to_owned()).collect() });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    Ok(client.join(request).await?.into_inner())
}

fn code(result: Result<JoinResponse, Status>) -> Code {
    result.unwrap_err().code()
}

#[tokio::test]
async fn each_workload_of_a_host_gets_a_token_for_its_own_identity_and_once() {
    let stage = Stage::start(&registered(&[CART, WEB])).await;
    let new = created(&stage, &[CART, WEB], 1, 600).await;
    assert_eq!(new.address.as_deref(), Some(format!("ca.test:{}", stage.address.port()).as_str()));
    let answer = join(&stage, &new.token, &[]).await.unwrap();
    assert_eq!(answer.trust_domain, "cluster.local");
    assert_eq!(answer.roots_pem, stage.root.bundle_pem());
    assert_eq!(answer.tokens.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [CART, WEB]);
    let request = || csr(&KeyPair::generate().unwrap());
    stage.connect().await.create(&request(), Some(&answer.tokens[0].token)).await.unwrap();
    let again = stage.connect().await.create(&request(), Some(&answer.tokens[0].token)).await;
    assert_eq!(again.unwrap_err().code(), Code::Unauthenticated);
    let audit = stage.audit();
    assert_eq!(audit.matches(r#""event":"joined""#).count(), 2, "{audit}");
    let secret = new.token.rsplit('.').next().unwrap();
    assert!(!audit.contains(secret) && !audit.contains(&answer.tokens[1].token), "a secret is in the audit");
    for file in std::fs::read_dir(stage.path("state")).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!content.windows(secret.len()).any(|part| part == secret.as_bytes()), "the secret is in the state");
    }
}

#[tokio::test]
async fn of_many_hosts_at_once_as_many_join_as_the_token_is_for() {
    let stage = Stage::start(&registered(&[CART])).await;
    let new = created(&stage, &[CART], 3, 600).await;
    let mut joined = 0;
    let mut set = tokio::task::JoinSet::new();
    let (address, roots) = (stage.address, stage.root.bundle_pem());
    for _ in 0..12 {
        let (token, roots) = (new.token.clone(), roots.clone());
        set.spawn(async move {
            let client = Client::connect(address, &roots, None).await.unwrap();
            let mut client = JoinClient::with_origin(client, "https://ca.test".parse().unwrap());
            let mut request = Request::new(JoinRequest { ids: Vec::new() });
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            client.join(request).await.is_ok()
        });
    }
    while let Some(one) = set.join_next().await {
        joined += usize::from(one.unwrap());
    }
    assert_eq!(joined, 3);
}

#[tokio::test]
async fn a_token_that_has_ended_gives_nothing_and_says_so_to_its_holder_only() {
    let mut stage = Stage::start(&registered(&[CART, WEB])).await;
    let (short, used, gone) = (
        created(&stage, &[CART], 1, 60).await,
        created(&stage, &[CART], 1, 3600).await,
        created(&stage, &[CART], 1, 3600).await,
    );
    join(&stage, &used.token, &[CART]).await.unwrap();
    let number = gone.kept.number.clone();
    assert!(matches!(ask(&stage, JoinTokenRequest::Revoke { number }).await, JoinTokenAnswer::Revoked));
    // The CA's clock goes beyond the life of the first one only, and what was used up stays so across a restart.
    stage.advance(61);
    stage.restart().await;
    for (token, what) in [(&short, "expired"), (&used, "used up"), (&gone, "revoked")] {
        let refused = join(&stage, &token.token, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains(what), "{what}: {refused}");
        let other = format!("{}{}", &token.token[..token.token.len() - 64], "0".repeat(64));
        assert_eq!(code(join(&stage, &other, &[]).await), Code::Unauthenticated);
    }
    let JoinTokenAnswer::Tokens(tokens) = ask(&stage, JoinTokenRequest::List).await else { panic!("no list") };
    let state = |new: &NewJoinToken| tokens.iter().find(|one| one.number == new.kept.number).unwrap().state.clone();
    assert_eq!([&short, &used, &gone].map(state), ["expired", "used up", "revoked"]);
}

#[tokio::test]
async fn what_the_operator_has_not_listed_is_refused_and_costs_no_use() {
    let stage = Stage::start(&registered(&[CART, WEB])).await;
    let new = created(&stage, &[CART], 1, 600).await;
    for ids in [&[WEB][..], &[CART, WEB], &[DB]] {
        let refused = join(&stage, &new.token, ids).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{ids:?}");
    }
    assert_eq!(code(join(&stage, &new.token, &["cart"]).await), Code::InvalidArgument);
    assert!(stage.audit().contains(r#""reason":"join-token-identity""#));
    join(&stage, &new.token, &[CART]).await.unwrap();
}

#[tokio::test]
async fn an_identity_that_was_taken_out_since_gets_no_token() {
    let stage = Stage::start(&registered(&[CART, WEB])).await;
    let new = created(&stage, &[CART], 1000, 600).await;
    std::fs::write(stage.path("identities.yaml"), registered(&[WEB])).unwrap();
    eventually("the file is read", async || {
        join(&stage, &new.token, &[]).await.is_err_and(|refused| refused.code() == Code::FailedPrecondition)
    })
    .await;
}

#[tokio::test]
async fn one_kind_of_token_is_no_other() {
    let stage = Stage::start(&registered(&[CART])).await;
    let new = created(&stage, &[CART], 1, 600).await;
    let request = csr(&KeyPair::generate().unwrap());
    let refused = stage.connect().await.create(&request, Some(&new.token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(code(join(&stage, &stage.token(CART), &[]).await), Code::Unauthenticated);
    assert!(join(&stage, &new.token, &[]).await.is_ok(), "no use was taken");
}

#[tokio::test]
async fn a_certificate_gets_a_token_for_the_next_start_and_a_token_gets_none() {
    let stage = Stage::start(&registered(&[CART, WEB])).await;
    let renew = async |client: Client, token: Option<&str>| {
        let mut client = JoinClient::with_origin(client, "https://ca.test".parse().unwrap());
        let mut request = Request::new(RenewTokenRequest {});
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        client.renew_token(request).await.map(tonic::Response::into_inner)
    };
    let (chain, key) = stage.svid(CART).await;
    let next = renew(stage.connect_as(chain, private(&key)).await, None).await.unwrap();
    assert_eq!(next.id, CART);
    assert_eq!(next.expires_unix, stage.clock().now_unix() + 7 * 24 * 3600);
    // As long as the CA's own certificate lasts here: far longer than the hour of a token of `--bootstrap`.
    stage.advance(20 * 3600);
    let request = csr(&KeyPair::generate().unwrap());
    stage.connect().await.create(&request, Some(&next.token)).await.unwrap();
    assert_eq!(renew(stage.connect().await, Some(&stage.token(WEB))).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(renew(stage.connect().await, None).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(stage.audit().contains(r#""reason":"token-for-token""#));
}

#[tokio::test]
async fn a_token_is_made_only_for_registered_workloads_with_a_folder() {
    let stage = Stage::start(&format!("{}- id: spiffe://cluster.local/odd\n", registered(&[CART]))).await;
    let request = |id: &str| JoinTokenRequest::Create { ids: vec![id.to_owned()], uses: 1, ttl_seconds: 600 };
    assert!(matches!(ask(&stage, request(DB)).await, JoinTokenAnswer::NotRegistered(id) if id == DB));
    for wrong in ["spiffe://cluster.local/odd", "db"] {
        assert!(matches!(ask(&stage, request(wrong)).await, JoinTokenAnswer::Refused(_)), "{wrong}");
    }
    let long = JoinTokenRequest::Create { ids: vec![CART.to_owned()], uses: 1, ttl_seconds: 8 * 24 * 3600 };
    assert!(matches!(ask(&stage, long).await, JoinTokenAnswer::Refused(_)));
}
