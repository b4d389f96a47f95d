//! Checks the extra roots of IstioOperator documents as every trust bundle is checked.

use portcullis_istio::{ExtraRoots, MeshConfig, RootCertificate, RootError};
use portcullis_tls::{BundleError, Clock, TrustBundle};

/// The extra roots, with their current problems.
pub(crate) fn check(mesh: &MeshConfig) -> ExtraRoots {
    let now = Clock::system().now_unix();
    ExtraRoots::check(mesh, |pem| parse(pem, now))
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
