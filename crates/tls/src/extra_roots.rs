//! The extra roots of Istio's mesh configuration, checked as every trust bundle is checked.

use portcullis_istio::{ExtraRoots, MeshConfig, RootCertificate, RootError};

use crate::bundle::{BundleError, TrustBundle};

/// The extra roots of a mesh configuration (`caCertificates`), with their problems at this time.
#[must_use]
pub fn check_extra_roots(mesh: &MeshConfig, now_unix: i64) -> ExtraRoots {
    ExtraRoots::check(mesh, |pem| parse(pem, now_unix))
}

fn parse(pem: &str, now_unix: i64) -> Result<Vec<RootCertificate>, RootError> {
    let bundle = TrustBundle::from_pem(pem.as_bytes(), now_unix).map_err(|error| RootError {
        reason: error.class(),
        expired: matches!(error, BundleError::Expired { .. }),
        message: error.to_string(),
    })?;
    let roots = bundle.roots();
    Ok(roots.map(|root| RootCertificate { der: root.der().to_vec(), not_after_unix: root.not_after_unix() }).collect())
}
