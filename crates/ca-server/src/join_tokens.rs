//! What the operator does with join tokens over the control socket: make, list and revoke.

use portcullis_ca::state::{JoinError, JoinGrant, JoinRefusal};
use portcullis_ca::{JoinNumber, JoinToken};
use portcullis_identity::SpiffeId;
use portcullis_tls::utc;
use serde::{Deserialize, Serialize};

use crate::audit::Entry;
use crate::join::MAX_IDS;
use crate::service::Services;

/// The longest life of a join token, in seconds: a week.
pub const MAX_JOIN_TTL_SECONDS: u32 = 7 * 24 * 3600;

/// What is asked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum JoinTokenRequest {
    /// Make one.
    #[serde(rename_all = "camelCase")]
    Create {
        /// The identities that it gives bootstrap tokens for.
        ids: Vec<String>,
        /// How many hosts may join with it.
        uses: u32,
        /// How long.
        ttl_seconds: u32,
    },
    /// List them.
    List,
    /// Make one useless.
    #[serde(rename_all = "camelCase")]
    Revoke {
        /// Its number.
        number: String,
    },
}

/// A new join token.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewJoinToken {
    /// The token: a secret, which is not kept.
    pub token: String,
    /// Where hosts find this CA, if `--name` says it.
    pub address: Option<String>,
    /// What is kept of it.
    pub kept: JoinTokenStatus,
}

/// A join token as the CA keeps it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenStatus {
    /// Its public number.
    pub number: String,
    /// `valid`, `used up`, `expired` or `revoked`.
    pub state: String,
    /// How many hosts may still join with it.
    pub uses_left: u32,
    /// Its end, RFC 3339.
    pub expires: String,
    /// The identities that it gives bootstrap tokens for.
    pub ids: Vec<String>,
}

/// What the CA answers.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum JoinTokenAnswer {
    /// It was made.
    Created(NewJoinToken),
    /// All that are kept.
    Tokens(Vec<JoinTokenStatus>),
    /// It is revoked.
    Revoked,
    /// An identity is not registered, or not yet read from the file that was just written.
    NotRegistered(String),
    /// Why nothing was done.
    Refused(String),
}

/// Answers one request. Blocking.
pub(crate) fn answer(services: &Services, request: JoinTokenRequest) -> JoinTokenAnswer {
    let now = services.state.clock.now_unix();
    match request {
        JoinTokenRequest::Create { ids, uses, ttl_seconds } => create(services, &ids, uses, ttl_seconds, now),
        JoinTokenRequest::List => {
            JoinTokenAnswer::Tokens(services.store.joins().iter().map(|grant| status(grant, now)).collect())
        }
        JoinTokenRequest::Revoke { number } => revoke(services, &number, now),
    }
}

fn create(services: &Services, ids: &[String], uses: u32, ttl_seconds: u32, now: i64) -> JoinTokenAnswer {
    let refused = |why: String| JoinTokenAnswer::Refused(why);
    if ids.is_empty() || ids.len() > MAX_IDS || uses == 0 || !(60..=MAX_JOIN_TTL_SECONDS).contains(&ttl_seconds) {
        return refused(format!(
            "a join token is for 1 to {MAX_IDS} identities and at least one host, and lasts a minute to a week"
        ));
    }
    let (ca, registrations) = (services.state.ca(), services.state.registrations.load_full());
    let mut allowed: Vec<SpiffeId> = Vec::new();
    for text in ids {
        let id = match SpiffeId::parse(text) {
            Ok(id) if id.istio().is_some() => id,
            Ok(id) => {
                return refused(format!(
                    "{id}: only IDs like spiffe://TD/ns/NAMESPACE/sa/ACCOUNT have a folder on the other host"
                ));
            }
            Err(error) => return refused(error.to_string()),
        };
        if registrations.get(&id).is_none() {
            return JoinTokenAnswer::NotRegistered(id.to_string());
        }
        if !allowed.contains(&id) {
            allowed.push(id);
        }
    }
    let Some(token) = JoinToken::random(ca.server_root()) else {
        return refused("the operating system's random generator failed".to_owned());
    };
    let grant = JoinGrant {
        number: token.number(),
        secret: token.secret_hash(),
        ids: allowed,
        uses_left: uses,
        expires_unix: now.saturating_add(i64::from(ttl_seconds)),
        revoked: false,
    };
    let kept = status(&grant, now);
    let detail = format!("{}: {} hosts, until {}, for {}", kept.number, uses, kept.expires, kept.ids.join(" "));
    if let Err(error) = note(services, "created", detail, now) {
        return refused(error);
    }
    match services.store.add_join(grant, now) {
        Ok(()) => {
            let (token, address) = (token.text().as_str().to_owned(), services.state.advertised.clone());
            JoinTokenAnswer::Created(NewJoinToken { token, address, kept })
        }
        Err(error) => failed(services, &error),
    }
}

fn revoke(services: &Services, number: &str, now: i64) -> JoinTokenAnswer {
    let known = JoinNumber::parse(number);
    let done = known.ok_or(JoinError::Refused(JoinRefusal::Unknown));
    let done = done.and_then(|number| services.store.revoke_join(number, now));
    match done.map_err(|error| failed(services, &error)) {
        Ok(()) => match note(services, "revoked", number.to_owned(), now) {
            Ok(()) => JoinTokenAnswer::Revoked,
            Err(error) => JoinTokenAnswer::Refused(format!("it is revoked, but {error}")),
        },
        Err(answer) => answer,
    }
}

fn failed(services: &Services, error: &JoinError) -> JoinTokenAnswer {
    if services.store.broken().is_some() {
        services.state_failed.notify_one();
    }
    JoinTokenAnswer::Refused(error.to_string())
}

/// A line of the audit, on disk.
fn note(services: &Services, what: &'static str, detail: String, now: i64) -> Result<(), String> {
    let entry = Entry {
        time: utc(now),
        event: "join-token",
        call: "join-token",
        caller: "ca.sock".to_owned(),
        reason: Some(what),
        detail: Some(detail),
        ..Entry::default()
    };
    services.audit.issued(&entry).map_err(|error| format!("the audit file cannot be written: {error}"))
}

fn status(grant: &JoinGrant, now: i64) -> JoinTokenStatus {
    let state = if grant.revoked {
        "revoked"
    } else if grant.expires_unix <= now {
        "expired"
    } else if grant.uses_left == 0 {
        "used up"
    } else {
        "valid"
    };
    JoinTokenStatus {
        number: grant.number.to_string(),
        state: state.to_owned(),
        uses_left: grant.uses_left,
        expires: utc(grant.expires_unix),
        ids: grant.ids.iter().map(ToString::to_string).collect(),
    }
}
