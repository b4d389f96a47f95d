//! What callers say of themselves: which trust bundles they use.

use std::sync::Arc;

use portcullis_ca::KeyHash;
use portcullis_ca::state::Report;
use tonic::metadata::MetadataMap;

use crate::authenticate::Caller;
use crate::service::Services;

/// The digest of the bundles that a caller says it uses.
pub(crate) fn told(metadata: &MetadataMap) -> Option<&str> {
    let digest = metadata.get("x-portcullis-bundle").and_then(|value| value.to_str().ok());
    digest.filter(|text| KeyHash::parse(text).is_some())
}

/// Notes it, if the caller has shown which of its identity's instances it is. Nobody waits for the disk.
pub(crate) fn note(services: &Arc<Services>, caller: &Caller, metadata: &MetadataMap) {
    let (Some(digest), Some(shown)) = (told(metadata), caller.shown) else { return };
    let services = Arc::clone(services);
    let (id, key, not_after_unix, digest) = (caller.id.clone(), shown.key, shown.not_after_unix, digest.to_owned());
    drop(tokio::task::spawn_blocking(move || {
        let since_unix = services.live.signing().as_ref().map_or(0, |rotation| rotation.published_unix);
        let report = Report { id, key, not_after_unix, digest, since_unix };
        if let Err(error) = services.store.told(&report, services.live.clock.now_unix()) {
            services.state_failed.notify_one();
            tracing::error!(%error, "the state cannot be written");
        }
    }));
}
