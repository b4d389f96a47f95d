//! The reports of callers: their trust bundles, and their connections by root.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_ca::KeyHash;
use portcullis_ca::state::{Report, Store};
use tokio::sync::Notify;
use tonic::metadata::MetadataMap;

use crate::authenticate::Caller;
use crate::ca_state::CaState;

/// The digest of the bundles that a caller reports.
pub(crate) fn bundle_digest(metadata: &MetadataMap) -> Option<&str> {
    let digest = metadata.get("x-portcullis-bundle").and_then(|value| value.to_str().ok());
    digest.filter(|text| KeyHash::parse(text).is_some())
}

/// A report of more roots than this is not used.
const MAX_ROOTS: usize = 16;

/// The caller's live connections by root; `None` if it does not report them, or not as it should.
fn connections(metadata: &MetadataMap) -> Option<BTreeMap<String, u64>> {
    let text = metadata.get("x-portcullis-connections")?.to_str().ok()?;
    if text == "none" {
        return Some(BTreeMap::new());
    }
    let mut by_root = BTreeMap::new();
    for part in text.split(',') {
        let (root, count) = part.split_once('=')?;
        KeyHash::parse(root)?;
        by_root.insert(root.to_owned(), count.parse::<u32>().ok()?.into());
    }
    (by_root.len() <= MAX_ROOTS).then_some(by_root)
}

/// Records the report of a caller with a client certificate, which identifies its instance. Does not wait for the disk.
pub(crate) fn note(
    store: &Arc<Store>,
    state: &Arc<CaState>,
    state_failed: &Arc<Notify>,
    caller: &Caller,
    metadata: &MetadataMap,
) {
    let (Some(digest), Some(client_certificate)) = (bundle_digest(metadata), caller.client_certificate) else { return };
    let (store, state, state_failed) = (Arc::clone(store), Arc::clone(state), Arc::clone(state_failed));
    let connections = connections(metadata);
    let (id, key, not_after_unix, digest) =
        (caller.id.clone(), client_certificate.key, client_certificate.not_after_unix, digest.to_owned());
    drop(tokio::task::spawn_blocking(move || {
        let since_unix = state.signing().as_ref().map_or(0, |rotation| rotation.published_unix);
        let report = Report { id, key, not_after_unix, digest, since_unix, connections };
        if let Err(error) = store.report(&report, state.clock.now_unix()) {
            state_failed.notify_one();
            tracing::error!(%error, "the state cannot be written");
        }
    }));
}
