//! A token for the next start: the key is in memory only, so a sidecar that restarts proves who it is with a token again.

use super::CaAgent;
use super::call::{CaEndpoint, CallCredentials};

impl CaAgent {
    /// Gets a token for the next start, if the one that is kept may be used up or past half of its life. A failure is repeated with the
    /// next poll.
    pub(super) async fn renew_token(&mut self, authority: &CaEndpoint) {
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
