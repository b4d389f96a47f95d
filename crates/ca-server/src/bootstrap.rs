//! Keeps a fresh token for each identity in `DIR/NAMESPACE/ACCOUNT/token`, and beside it the CA's roots.
//!
//! A service mounts its folder and may restart at any time: a token is replaced once it was used, and at half of its lifetime.
//! Each is valid for one certificate of that identity.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_ca::{Private, Token, TokenKey, write};
use portcullis_identity::SpiffeId;
use tokio::sync::Notify;

use crate::service::Services;

const TOKEN_TTL: Duration = Duration::from_secs(3600);
const HALF_TTL_SECONDS: u64 = 1800;
/// How often they are checked when nothing has changed.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The tokens and roots that were written.
#[derive(Default)]
struct TokenFolder {
    tokens: BTreeMap<SpiffeId, Token>,
    /// The key that signed them.
    key: Option<Arc<TokenKey>>,
    roots: BTreeMap<SpiffeId, String>,
    /// Identities for which a warning was logged.
    warned: BTreeSet<SpiffeId>,
}

/// Keeps them fresh until it is dropped.
pub(crate) async fn keep(folder: PathBuf, services: Arc<Services>, registered: Arc<Notify>) {
    let mut used = services.used();
    let mut tokens_on_disk = TokenFolder::default();
    loop {
        let (workload_dir, shared) = (folder.clone(), Arc::clone(&services));
        let round = tokio::task::spawn_blocking(move || {
            tokens_on_disk.refresh(&workload_dir, &shared);
            tokens_on_disk
        });
        match round.await {
            Ok(back) => tokens_on_disk = back,
            // Only if it panicked: everything is written anew then.
            Err(error) => {
                tracing::error!(%error, "tokens could not be refreshed");
                tokens_on_disk = TokenFolder::default();
            }
        }
        tokio::select! {
            _changed = used.changed() => {}
            () = registered.notified() => {}
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
    }
}

impl TokenFolder {
    fn refresh(&mut self, folder: &Path, services: &Services) {
        let registrations = services.state.registrations.load_full();
        let key = services.state.tokens.load_full();
        if self.key.as_ref().is_some_and(|known| !Arc::ptr_eq(known, &key)) {
            // The tokens on disk are invalid now.
            self.tokens.clear();
        }
        self.key = Some(Arc::clone(&key));
        let gone: Vec<_> = self.tokens.keys().filter(|id| registrations.get(id).is_none()).cloned().collect();
        for id in gone {
            self.tokens.remove(&id);
            self.roots.remove(&id);
            if let Some(workload_dir) = workload_dir(folder, &id) {
                // The token is invalid already, since the identity is not registered.
                let _gone = std::fs::remove_file(workload_dir.join("token"));
            }
        }
        for (id, _) in registrations.iter() {
            let Some(workload_dir) = workload_dir(folder, id) else {
                if self.warned.insert(id.clone()) {
                    tracing::warn!(%id, "no token is kept for it: only IDs like spiffe://TD/ns/NAMESPACE/sa/ACCOUNT have a folder");
                }
                continue;
            };
            if let Err(error) = self.refresh_one(&workload_dir, id, &key, services) {
                tracing::error!(%id, place = %workload_dir.display(), error, "its token cannot be refreshed");
            }
        }
    }

    fn refresh_one(
        &mut self,
        workload_dir: &Path,
        id: &SpiffeId,
        key: &TokenKey,
        services: &Services,
    ) -> Result<(), String> {
        let now = services.state.clock.now_unix();
        DirBuilder::new().recursive(true).mode(0o700).create(workload_dir).map_err(|error| error.to_string())?;
        let roots = services.state.ca().signer.roots_pem().to_owned();
        let file = workload_dir.join("root-cert.pem");
        if self.roots.get(id) != Some(&roots) || !file.exists() {
            write(&file, roots.as_bytes(), Private::No, true).map_err(|error| error.to_string())?;
            self.roots.insert(id.clone(), roots);
        }
        let file = workload_dir.join("token");
        let fresh = self
            .tokens
            .get(id)
            .is_some_and(|token| !services.is_used(token) && is_fresh(token.expires_unix, now) && file.exists());
        if !fresh {
            let (text, token) = key.issue(id, TOKEN_TTL, false, now).map_err(|error| error.to_string())?;
            write(&file, text.as_bytes(), Private::Yes, true).map_err(|error| error.to_string())?;
            self.tokens.insert(id.clone(), token);
        }
        Ok(())
    }
}

/// Whether a token with this expiry may stay. If more than its whole lifetime is left, the clock was set back since it was
/// made, and it would be refused as not yet valid.
fn is_fresh(expires_unix: i64, now_unix: i64) -> bool {
    let left = u64::try_from(expires_unix.saturating_sub(now_unix)).unwrap_or_default();
    (HALF_TTL_SECONDS + 1..=TOKEN_TTL.as_secs()).contains(&left)
}

/// Segments of a SPIFFE ID have no slash and are not `.` or `..`, so they are names of folders.
fn workload_dir(folder: &Path, id: &SpiffeId) -> Option<PathBuf> {
    id.istio().map(|istio| folder.join(istio.namespace).join(istio.service_account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_at_half_of_its_life_and_when_the_clock_was_set_back() {
        let now = 1_800_000_000;
        let expires = now + 3600;
        for (clock, fresh) in [(now, true), (now + 1799, true), (now + 1800, false), (now + 9999, false)] {
            assert_eq!(is_fresh(expires, clock), fresh, "{}", clock - now);
        }
        assert!(!is_fresh(expires, now - 3600), "refused for an hour as one from the future");
        assert!(!is_fresh(i64::MAX, i64::MIN));
    }
}
