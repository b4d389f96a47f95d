//! Making a bootstrap token from a CA's folder, whether it runs or not.

use std::path::Path;
use std::time::Duration;

use portcullis_ca::TokenKey;
use portcullis_identity::SpiffeId;
use portcullis_tls::Clock;

use crate::reload;
use crate::server::token_key;

/// Makes a token for a registered identity. It is good for one certificate, or `reusable` until it ends.
///
/// # Errors
/// If the folder holds no CA, the identity is not registered, or the token cannot be made.
pub fn mint(dir: &Path, id: &SpiffeId, ttl: Duration, reusable: bool) -> Result<String, String> {
    let registrations = reload::registrations(dir)?;
    if registrations.get(id).is_none() {
        return Err(format!(
            "{id} is not registered; add `- id: {id}` to identities in {}",
            dir.join("identities.yaml").display()
        ));
    }
    let signer = reload::in_force(dir, registrations.trust_domain.as_ref())?.signer;
    reload::fit(&registrations, signer.trust_domain())?;
    let key: TokenKey = token_key(dir, &signer).map_err(|error| error.to_string())?;
    let token = key.issue(id, ttl, reusable, Clock::system().now_unix());
    token.map(|(text, _)| text).map_err(|error| error.to_string())
}
