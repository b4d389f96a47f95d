//! Between a workload and a certificate authority, where one of the two may have no certificate yet: TLS 1.3 and HTTP/2. The
//! authority is known by its name and not by an identity, and judges itself whom it serves.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, ClientConfig, DistinguishedName, Error, NoKeyLog, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::provider::provider;
use crate::verify::{MAX_CHAIN_CERTIFICATES, MAX_CHAIN_LEN};

/// The client's side of one connection: TLS 1.3 and HTTP/2. The server's certificate must lead to one of the roots and be for
/// the name that is dialled. With credentials our own certificate is shown to it.
///
/// # Errors
/// When a root cannot be used, or TLS cannot be set up.
pub fn client(
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
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(own.present()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.key_log = Arc::new(NoKeyLog {});
    Ok(config)
}

/// The authority's side. **It authenticates nobody**: a client may come without a certificate, and one that it shows is proven to
/// be its own and no more. Whether that is worth anything the authority decides at each request, with the roots of that moment:
/// then a refusal has an answer and a line in the audit, where a failed handshake would leave a client with a broken connection.
///
/// # Errors
/// When certificate and key cannot be used, or TLS cannot be set up.
pub fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clock: &Clock,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(Possession))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Nothing is resumed: a certificate is shown in each connection.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.key_log = Arc::new(NoKeyLog {});
    Ok(config)
}

/// Lets any client finish its handshake that shows no certificate, or holds the key of the one it shows.
#[derive(Debug)]
struct Possession;

impl ClientCertVerifier for Possession {
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
        let length = intermediates.iter().fold(end_entity.len(), |sum, der| sum.saturating_add(der.len()));
        if intermediates.len() >= MAX_CHAIN_CERTIFICATES || length > MAX_CHAIN_LEN {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    crate::signatures::judged_alike!();
}
