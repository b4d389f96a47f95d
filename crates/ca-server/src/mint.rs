//! Operations on a CA's folder that do not need a running CA: issuing a bootstrap token, reading the trust domain.

use std::path::Path;
use std::time::Duration;

use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_tls::Clock;

use crate::reload;

/// The trust domain of the CA in a folder, whether it runs or not.
///
/// # Errors
/// If the folder holds no CA.
pub fn trust_domain(dir: &Path) -> Result<TrustDomain, String> {
    let configured = reload::registrations(dir)?.trust_domain;
    Ok(reload::in_force(dir, configured.as_ref(), &Clock::system())?.signer.trust_domain().clone())
}

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
    let signer = reload::in_force(dir, registrations.trust_domain.as_ref(), &Clock::system())?.signer;
    reload::check_consistency(&registrations, signer.trust_domain())?;
    let key = reload::token_key(dir, signer.trust_domain())?;
    let token = key.issue(id, ttl, reusable, Clock::system().now_unix());
    token.map(|(text, _)| text).map_err(|error| error.to_string())
}
