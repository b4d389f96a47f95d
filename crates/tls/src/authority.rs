//! The client's side toward a certificate authority: a server that is known by its name and not by an identity.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, NoKeyLog, RootCertStore};
use rustls_pki_types::CertificateDer;

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::provider::provider;

/// The configuration of one connection: TLS 1.3 and HTTP/2. The server's certificate must lead to one of the roots and be for
/// the name that is dialled. With credentials our own certificate is shown to it.
///
/// # Errors
/// When a root cannot be used, or TLS cannot be set up.
pub fn client(
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
    own: Option<&Credentials>,
    clock: &Clock,
) -> Result<ClientConfig, rustls::Error> {
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
