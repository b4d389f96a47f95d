//! The server's TLS: 1.3 and HTTP/2 only, a certificate of the client's if it has one.

use std::sync::Arc;

use portcullis_ca::{ServerName, Signer};
use portcullis_tls::{Clock, MAX_CHAIN_CERTIFICATES, MAX_CHAIN_LEN, provider};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, NoKeyLog, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::live::SERVER_TTL;

/// Lets any client finish its handshake that holds the key of the certificate it shows. Whether that certificate is worth
/// anything is decided at each request, by `authenticate`, with the roots of that moment: then a refusal has an answer and a
/// line in the audit, where a failed handshake would leave a client with a broken connection.
#[derive(Debug)]
struct Possession {
    signatures: WebPkiSupportedAlgorithms,
}

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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.signatures)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.signatures)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_schemes()
    }
}

/// A configuration with a new server certificate, and the first and last second of that, in Unix time.
pub(crate) fn configuration(signer: &Signer, names: &[ServerName]) -> Result<(Arc<ServerConfig>, (i64, i64)), String> {
    let server = signer.server_certificate(names, SERVER_TTL).map_err(|error| error.to_string())?;
    let provider = provider();
    let verifier = Possession { signatures: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Clock::system()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(server.chain, server.key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Nothing is resumed: a certificate is shown in each connection.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.key_log = Arc::new(NoKeyLog {});
    Ok((Arc::new(config), server.valid_unix))
}
