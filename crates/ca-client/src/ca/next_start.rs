//! What the next start needs: a token, since the key is in memory only and a sidecar that restarts proves who it is again; and the roots as
//! they are now, since the CA may have another one by then than when the host joined.

use super::CaAgent;
use super::call::{CaEndpoint, CallCredentials};

impl CaAgent {
    /// Keeps both, where that is wanted. A failure is repeated with the next poll.
    pub(super) async fn keep_for_next_start(&mut self, authority: &CaEndpoint) {
        self.keep_roots();
        self.renew_token(authority).await;
    }

    /// Replaces the roots in the file by those that are in force, if they differ.
    fn keep_roots(&mut self) {
        let Some(own) = self.bundles.as_ref().map(|bundles| bundles.own.clone()) else { return };
        if self.inputs.keep_roots.is_none() {
            return;
        }
        let is_kept =
            self.file_roots().is_ok_and(|file| file.len() == own.len() && own.iter().all(|root| file.contains(root)));
        let Some(keep) = self.inputs.keep_roots.as_mut().filter(|_| !is_kept) else { return };
        match keep(&own) {
            Ok(()) => tracing::info!(
                roots = own.len(),
                "the roots in trustBundle are replaced by those of the CA, for the next start"
            ),
            Err(error) => tracing::warn!(
                error,
                "the roots in trustBundle are not those of the CA and cannot be replaced (identity.ca.renewToken): after a rotation of the root, a \
                 restart would not find the CA"
            ),
        }
    }

    /// Gets a token for the next start, if the one that is kept may be used up or past half of its life.
    async fn renew_token(&mut self, authority: &CaEndpoint) {
        let now = self.now().unix;
        if self.inputs.keep_token.is_none() || now < self.token_due_unix {
            return;
        }
        let Ok(current) = self.publisher.reader().current() else { return };
        let asked = match self.file_roots() {
            Ok(file) => authority.renew_token(self.authority_roots(&file), &CallCredentials::Svid(current)).await,
            Err(error) => Err(error),
        };
        let kept = match (asked, &mut self.inputs.keep_token) {
            (Ok(new), Some(keep)) => keep(&new.token).map(|()| new.expires_unix),
            (Err(error), _) => Err(error.to_string()),
            (Ok(_), None) => return,
        };
        match kept {
            Ok(expires_unix) => {
                self.token_due_unix = now.saturating_add(expires_unix.saturating_sub(now) / 2);
                tracing::debug!(expires_unix, "a token for the next start is kept");
            }
            Err(error) => tracing::warn!(
                error,
                "there is no new token for the next start (identity.ca.renewToken): until this works, a restart needs a new token in tokenFile"
            ),
        }
    }
}
