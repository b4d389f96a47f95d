//! Whether the chain that a proxy shows is one that its peers accept.

use portcullis_api::{Certificate, Certs, ProxyInfo, TlsCompat, WorkloadCertificate};
use portcullis_identity::TrustDomain;
use portcullis_identity::leaf::{Compat, Role};
use portcullis_tls::{TrustBundle, TrustBundles, certificates};
use rustls_pki_types::{CertificateDer, UnixTime};

/// As a peer verifies it at a time, on both sides of a connection.
///
/// # Errors
/// Why a peer would refuse it, or what the proxy does not show.
pub(crate) fn verify(
    proxy: &ProxyInfo,
    certs: &Certs,
    own: &WorkloadCertificate,
    compat: TlsCompat,
    now: i64,
) -> Result<(), String> {
    let read = |certificate: &Certificate| -> Result<CertificateDer<'static>, String> {
        let read = certificates(certificate.pem.as_bytes())
            .map_err(|error| format!("the proxy shows no PEM of it: {error}"))?;
        read.into_iter().next().ok_or_else(|| "the proxy shows no PEM of it".to_owned())
    };
    let domain = |name: &str| TrustDomain::parse(name).map_err(|error| format!("trust domain {name:?}: {error}"));
    let chain = own.cert_chain.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mesh = domain(&proxy.trust_domain)?;
    let mut bundle = None;
    let mut foreign = Vec::new();
    for roots in &certs.trust_bundles {
        let name = domain(&roots.trust_domain)?;
        let ders = roots.root_certs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let trusted = TrustBundle::from_der(ders, now).map_err(|error| format!("roots of {name}: {error}"))?;
        if name == mesh { bundle = Some(trusted) } else { foreign.push((name, trusted)) }
    }
    let bundle = bundle.ok_or_else(|| format!("the proxy has no roots of its own trust domain {mesh}"))?;
    let aliases = proxy.trust_domain_aliases.iter().map(|alias| domain(alias)).collect::<Result<Vec<_>, _>>()?;
    let compat = Compat { eku: compat.eku, ku_critical: compat.ku_critical };
    let trust = TrustBundles::new(mesh, aliases, bundle, foreign, compat).map_err(|error| error.to_string())?;
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now).unwrap_or_default()));
    for role in [Role::Client, Role::Server] {
        let (leaf, _) = trust.verify(&chain, role, at).map_err(|error| error.to_string())?;
        if leaf.id.as_str() != proxy.identity {
            return Err(format!("it is for {}, and the workload is {}", leaf.id, proxy.identity));
        }
    }
    Ok(())
}
