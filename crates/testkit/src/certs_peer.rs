//! A peer that presents any chain and accepts any chain, as an attacker or a broken mesh would.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certs::Issued;
use crate::certs_key::Key;

/// rustls without any scruple about certificates.
#[derive(Clone, Debug)]
pub struct RawPeer {
    chain: Option<(Vec<CertificateDer<'static>>, Key)>,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
}

impl RawPeer {
    /// Presents this chain, and proves that it has this key.
    #[must_use]
    pub fn presenting(issued: &Issued) -> Self {
        Self { chain: Some((issued.chain.clone(), issued.key.clone())), ..Self::anonymous() }
    }

    /// Presents this chain with another key: a certificate that was copied.
    #[must_use]
    pub fn copying(issued: &Issued, key: Key) -> Self {
        Self { chain: Some((issued.chain.clone(), key)), ..Self::anonymous() }
    }

    /// Presents nothing. As a server it is of no use.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { chain: None, versions: rustls::ALL_VERSIONS.to_vec(), alpn: Vec::new() }
    }

    /// Speaks these versions only.
    #[must_use]
    pub fn with_versions(mut self, versions: &[&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    /// Offers these protocol names.
    #[must_use]
    pub fn with_alpn(mut self, names: &[&[u8]]) -> Self {
        self.alpn = names.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// A client that remembers sessions, as most do, and would use a ticket if it got one.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone));
        let mut config = match self.certified_key() {
            Some(key) => builder.with_client_cert_resolver(Arc::new(key)),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(64);
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }

    /// A server that requests a certificate and accepts any, with rustls' default of tickets and stored sessions.
    #[must_use]
    pub fn server(&self) -> ServerConfig {
        let key = self.certified_key().expect("a server needs a certificate");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anyone))
            .with_cert_resolver(Arc::new(key));
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }

    fn certified_key(&self) -> Option<SingleCertAndKey> {
        let (chain, key) = self.chain.clone()?;
        let key = provider().key_provider.load_private_key(key.der()).expect("rustls takes the key");
        Some(CertifiedKey::new(chain, key).into())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Accepts any certificate. Signatures are verified, so that a mistake in the test kit does not look like a finding.
#[derive(Debug)]
struct Anyone;

impl Anyone {
    fn tls12(
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &aws_lc_rs::default_provider().signature_verification_algorithms)
    }

    fn tls13(
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &aws_lc_rs::default_provider().signature_verification_algorithms)
    }

    fn schemes() -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for Anyone {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}
