//! `ca.sock`, the control socket for local commands. The request is one line, the answer one JSON value.
//!
//! A process that may open the socket (mode 0600) may also read the CA's key. The peer's user is checked at each connection,
//! since the mode is set only after the socket exists, and with a loose umask another user could connect before that.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_ca::state::Instance;
use portcullis_tls::utc;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::join_tokens::{self, JoinTokenAnswer, JoinTokenRequest};
use crate::plain;
use crate::rotate::step;
use crate::rotation_status::RotationStatus;
use crate::service::Services;
use crate::step::Request;

/// The name of the socket in the CA's folder.
pub(crate) const SOCKET: &str = "ca.sock";
/// What a request about join tokens begins with.
const JOIN_TOKEN: &str = "join-token ";
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_REQUEST_LEN: u64 = 1024 * 1024;
const MAX_ANSWER_LEN: u64 = 16 * 1024 * 1024;

/// The status of a running CA.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaStatus {
    /// Whether it can issue.
    pub ready: bool,
    /// Why not.
    pub pending: Option<String>,
    /// The trust domain that it issues for.
    pub trust_domain: String,
    /// Until when it can sign, RFC 3339.
    pub signs_until: String,
    /// The ends of the roots that are published, RFC 3339.
    pub roots_until: Vec<String>,
    /// How many roots resources add to them for workloads.
    pub extra_roots: usize,
    /// Whether the root's key is online.
    pub signs_as_root: bool,
    /// How many identities are registered.
    pub registered: usize,
    /// How many identities have a certificate that is valid.
    pub certified: usize,
    /// How many of those use the bundles that are handed out now: each of their instances with a valid certificate has said so.
    pub on_current_bundles: usize,
    /// The other trust domains whose bundles are handed out.
    pub federated: Vec<String>,
    /// The digest of the bundles that are handed out now.
    pub bundle_digest: String,
    /// Certificates issued since the start.
    pub issued: u64,
}

/// What other domains need to trust a CA's workloads.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// Whose roots they are.
    pub trust_domain: String,
    /// The roots that are handed out now, in PEM.
    pub roots: String,
}

pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    // No other CA uses it: the state is locked.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: UnixListener, services: Arc<Services>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        match stream.peer_cred() {
            Ok(caller) if is_allowed(caller.uid()) => {}
            Ok(caller) => {
                tracing::warn!(uid = caller.uid(), "refused at ca.sock: only root and the CA's own user may ask");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "refused at ca.sock: the system does not say who it is");
                continue;
            }
        }
        let services = Arc::clone(&services);
        tokio::spawn(async move {
            // A client that disconnects is not an error.
            let _answered = tokio::time::timeout(TIMEOUT, one(stream, &services)).await;
        });
    }
}

fn is_allowed(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

async fn one(stream: UnixStream, services: &Arc<Services>) -> io::Result<()> {
    let mut stream = tokio::io::BufReader::new(stream);
    let mut request = String::new();
    (&mut stream).take(MAX_REQUEST_LEN).read_line(&mut request).await?;
    let answer = match request.trim_end() {
        "status" => serde_json::to_string(&status(services))?,
        "roots" => {
            let ca = services.state.ca();
            let (trust_domain, roots) = (ca.signer.trust_domain().to_string(), ca.signer.roots_pem().to_owned());
            serde_json::to_string(&Published { trust_domain, roots })?
        }
        other if other.starts_with(JOIN_TOKEN) => match serde_json::from_str(other.trim_start_matches(JOIN_TOKEN)) {
            Ok(request) => {
                let services = Arc::clone(services);
                let done = tokio::task::spawn_blocking(move || join_tokens::answer(&services, request)).await;
                serde_json::to_string(&done.map_err(io::Error::other)?)?
            }
            Err(error) => serde_json::to_string(&JoinTokenAnswer::Refused(error.to_string()))?,
        },
        other => match other.strip_prefix("rotate-root ").map(serde_json::from_str::<Request>) {
            Some(Ok(request)) => {
                let services = Arc::clone(services);
                // It runs to its end even if the client disconnects.
                let done = tokio::task::spawn_blocking(move || step(&services, &request)).await;
                serde_json::to_string(&done.map_err(io::Error::other)?)?
            }
            _ => r#"{"error":"unknown question"}"#.to_owned(),
        },
    };
    stream.get_mut().write_all(answer.as_bytes()).await?;
    stream.get_mut().shutdown().await
}

fn status(services: &Services) -> CaStatus {
    let (ca, now) = (services.state.ca(), services.state.clock.now_unix());
    let digest = services.state.bundle_digest();
    let identities = services.store.identities();
    let certified = || identities.iter().filter(|(_, identity)| identity.not_after_unix >= now);
    let instances = services.store.instances();
    let reported = |one: &Instance| one.reported.as_ref().is_some_and(|reported| reported.digest == digest);
    let behind: BTreeSet<_> =
        instances.values().filter(|one| one.not_after_unix >= now && !reported(one)).map(|one| &one.id).collect();
    let pending = plain::ready(services).err();
    CaStatus {
        ready: pending.is_none(),
        pending,
        trust_domain: ca.signer.trust_domain().to_string(),
        signs_until: utc(ca.signer.not_after_unix()),
        roots_until: ca.signer.roots().roots().map(|root| utc(root.not_after_unix())).collect(),
        extra_roots: services.state.resources.load().roots_beyond(ca.signer.roots(), now).count(),
        signs_as_root: ca.signer.signs_as_root(),
        registered: services.state.registrations.load().iter().count(),
        certified: certified().count(),
        on_current_bundles: certified().filter(|(id, _)| !behind.contains(id)).count(),
        federated: services.state.foreign.load().keys().map(ToString::to_string).collect(),
        bundle_digest: digest,
        issued: services.metrics.issued.get(),
    }
}

/// Requests the status of the CA that runs on a folder.
///
/// # Errors
/// If none runs, or it does not answer.
pub fn status_of(dir: &Path) -> io::Result<CaStatus> {
    exchange(dir, "status")
}

/// Asks the CA that runs on a folder for its roots.
///
/// # Errors
/// If none runs, or it does not answer.
pub fn published(dir: &Path) -> io::Result<Published> {
    exchange(dir, "roots")
}

/// Requests a step of a rotation, or its status, from the CA that runs on a folder.
///
/// # Errors
/// If none runs, or it does not answer.
pub fn rotate(dir: &Path, request: &Request) -> io::Result<RotationStatus> {
    exchange(dir, &format!("rotate-root {}", serde_json::to_string(request)?))
}

/// Makes, lists or revokes join tokens at the CA that runs on a folder.
///
/// # Errors
/// If none runs, or it does not answer.
pub fn join_token(dir: &Path, request: &JoinTokenRequest) -> io::Result<JoinTokenAnswer> {
    exchange(dir, &format!("{JOIN_TOKEN}{}", serde_json::to_string(request)?))
}

fn exchange<T: for<'de> Deserialize<'de>>(dir: &Path, request: &str) -> io::Result<T> {
    let mut stream = StdUnixStream::connect(dir.join(SOCKET))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut text = String::new();
    BufReader::new(stream).take(MAX_ANSWER_LEN).read_line(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn only_root_and_our_own_user_may_ask() {
        let own = rustix::process::geteuid().as_raw();
        assert!(is_allowed(0) && is_allowed(own));
        assert!(!is_allowed(own.wrapping_add(1000)));
    }
}
