//! `/certs`: the own certificate as ztunnel shows it, and every bundle that peers are verified against.

use portcullis_identity::summary;
use portcullis_tls::{CredentialReader, TrustBundle, utc};
use serde_json::{Value, json};

use crate::daemon::source_status::SourceStatus;

/// The page, also a part of `/config_dump`.
pub(in crate::daemon) fn certs(reader: &CredentialReader, source: &SourceStatus) -> Value {
    json!({ "certificates": certificates(reader, source), "source": source.page(), "trustBundles": bundles(reader) })
}

/// One entry, or none before the first certificate: a workload has one identity.
pub(super) fn certificates(reader: &CredentialReader, source: &SourceStatus) -> Vec<Value> {
    let Some(latest) = reader.latest() else { return Vec::new() };
    let state = match reader.current() {
        Ok(_) => "Available".to_owned(),
        Err(why) => format!("Unavailable: {why}"),
    };
    let own = latest.trust().bundle(latest.trust().domains().own().as_str());
    vec![json!({
        "identity": latest.id().as_str(),
        "state": state,
        "renewsAt": source.renews_at_unix().map(utc),
        "generation": latest.generation(),
        "certChain": latest.svid().chain.iter().map(|certificate| certificate_facts(certificate)).collect::<Vec<_>>(),
        "rootCerts": own.map(roots).unwrap_or_default(),
        "warnings": latest.warnings().iter().map(ToString::to_string).collect::<Vec<_>>(),
    })]
}

/// Each trust domain with its roots.
fn bundles(reader: &CredentialReader) -> Vec<Value> {
    let Some(latest) = reader.latest() else { return Vec::new() };
    let bundle = |(domain, bundle): (&portcullis_identity::TrustDomain, &TrustBundle)| json!({ "trustDomain": domain.as_str(), "rootCerts": roots(bundle) });
    latest.trust().iter().map(bundle).collect()
}

fn roots(bundle: &TrustBundle) -> Vec<Value> {
    bundle.roots().map(|root| certificate_facts(root.der())).collect()
}

fn certificate_facts(der: &[u8]) -> Value {
    match summary(der) {
        Ok(facts) => json!({
            "subject": facts.subject,
            "issuer": facts.issuer,
            "serialNumber": facts.serial,
            "serialNumberHex": facts.serial_hex,
            "validFrom": utc(facts.not_before_unix),
            "expirationTime": utc(facts.not_after_unix),
            // Whoever asks can verify the chain.
            "pem": portcullis_ca::pem(der),
        }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}
