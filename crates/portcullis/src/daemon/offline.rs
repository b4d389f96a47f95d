//! What pages would show of a configuration that no process runs with yet, for `portcullis check -c`: read and checked by the same code.

use portcullis_api::{CaptureRules, Mode};
use portcullis_config::{IdentityFiles, Settings};
use portcullis_policy::PolicySet;
use portcullis_tls::CredentialStore;
use serde_json::Value;

use super::credentials;
use super::pages::{certs, observations, policies, status};
use super::source_status::SourceStatus;

/// The mode in an answer.
pub(crate) const fn mode(mode: portcullis_policy::Mode) -> Mode {
    observations::mode(mode)
}

/// The redirect rules of this network namespace, compared with those of the configuration; what differs, or why that is not known.
pub(crate) fn capture_rules(settings: &Settings) -> (CaptureRules, Option<String>) {
    status::rules(settings)
}

/// `/policies` of a set.
pub(crate) fn policies_page(settings: &Settings, set: &PolicySet) -> Value {
    policies::policies(settings, set, None, None)
}

/// `/certs` of `identity.files`.
///
/// # Errors
/// Why the proxy would not start with them.
pub(crate) fn certificate_page(settings: &Settings, files: &IdentityFiles, private: bool) -> Result<Value, String> {
    let credentials = credentials::read_once(settings, files, private)?;
    let (mut store, reader) = CredentialStore::new();
    store.publish(credentials);
    Ok(certs::certs(&reader, &SourceStatus::None))
}
