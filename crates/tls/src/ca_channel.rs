//! TLS 1.3 for HTTP/2 between a workload and a certificate authority. The workload may have no certificate yet. The CA is verified
//! by its DNS name, not by a SPIFFE ID, and authenticates its clients per request.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, ClientConfig, DistinguishedName, Error, NoKeyLog, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::digest::sha256;
use crate::provider::provider;
use crate::verify::{MAX_CHAIN_CERTIFICATES, MAX_CHAIN_LEN};

/// The client's configuration. The server's certificate must chain to one of the roots and be valid for the dialled name. With
/// credentials, our own certificate is presented.
///
/// # Errors
/// When a root cannot be used, or TLS cannot be set up.
pub fn client_config(
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
    own: Option<&Credentials>,
    clock: &Clock,
) -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root)?;
    }
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(store);
    Ok(with_own_settings(match own {
        Some(own) => builder.with_client_cert_resolver(own.client_cert_resolver()),
        None => builder.with_no_client_auth(),
    }))
}

/// The configuration of a client that knows only the SHA-256 of the authority's root certificate. The server must show that root at
/// the end of its chain, chain to it, and be valid for the dialled name; otherwise the handshake fails before anything is sent. A
/// server without that root is an unknown issuer.
///
/// # Errors
/// When TLS cannot be set up.
pub fn pinned_client_config(root_sha256: [u8; 32], clock: &Clock) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedRootVerifier { root_sha256 }));
    Ok(with_own_settings(builder.with_no_client_auth()))
}

fn with_own_settings(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.key_log = Arc::new(NoKeyLog {});
    config
}

/// The CA's configuration. **It does not authenticate clients**: a client may present no certificate, and of a presented one only
/// the possession of its key is verified. The CA verifies the chain at each request, with its current roots: then a refusal has a
/// response and an audit record, where a failed handshake would leave the client with a broken connection.
///
/// # Errors
/// When certificate and key cannot be used, or TLS cannot be set up.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clock: &Clock,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(PossessionOnlyVerifier))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: each connection presents its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.key_log = Arc::new(NoKeyLog {});
    Ok(config)
}

/// Accepts a server whose chain ends at the one root with this SHA-256, which the server itself shows.
#[derive(Debug)]
struct PinnedRootVerifier {
    root_sha256: [u8; 32],
}

impl ServerCertVerifier for PinnedRootVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        within_limits(end_entity, intermediates)?;
        let is_pinned = |der: &&CertificateDer<'_>| sha256(der) == self.root_sha256;
        let root = intermediates.iter().find(is_pinned).ok_or(CertificateError::UnknownIssuer)?;
        let mut store = RootCertStore::empty();
        store.add(root.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider()).build();
        let verifier = verifier.map_err(|_| CertificateError::BadEncoding)?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    crate::signatures::signature_verification!();
}

fn within_limits(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
    let len = intermediates.iter().fold(end_entity.len(), |sum, der| sum.saturating_add(der.len()));
    if intermediates.len() >= MAX_CHAIN_CERTIFICATES || len > MAX_CHAIN_LEN {
        return Err(CertificateError::ApplicationVerificationFailure.into());
    }
    Ok(())
}

/// Accepts every client that presents no certificate, or proves possession of the key of the one that it presents.
#[derive(Debug)]
struct PossessionOnlyVerifier;

impl ClientCertVerifier for PossessionOnlyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        within_limits(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    crate::signatures::signature_verification!();
}
