//! A handshake of rustls that always ends in the same secrets: its random numbers, key exchange and signatures are constants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use portcullis_record::{RecordLayer, TrafficSecretLog};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, KeyLog, NamedGroup, ServerConfig, SignatureAlgorithm, SignatureScheme,
    SupportedCipherSuite,
};

use crate::rustls_ends::{Configs, Handshake, Rustls, Side};

const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

#[derive(Debug)]
struct Constant;

impl SecureRandom for Constant {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        bytes.fill(0x5a);
        Ok(())
    }
}

impl SupportedKxGroup for Constant {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Constant {
    fn complete(self: Box<Self>, _peer: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&[7_u8; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[9; 32]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl SigningKey for Constant {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Constant {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![1; 64])
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl ServerCertVerifier for Constant {
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
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// The secrets of a handshake by their label.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Mutex<HashMap<String, Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().insert(label.to_owned(), secret.to_vec());
    }
}

impl Secrets {
    pub(crate) fn get(&self, label: &str) -> Vec<u8> {
        self.0.lock().unwrap()[label].clone()
    }
}

fn configs(suite: usize) -> Configs {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![SUITES[suite % SUITES.len()]],
        kx_groups: vec![&Constant],
        secure_random: &Constant,
        ..aws_lc_rs::default_provider()
    });
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Constant))
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    let certificate = CertifiedKey::new(vec![CertificateDer::from(vec![0x30, 0])], Arc::new(Constant));
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    server.send_tls13_tickets = 0;
    Configs { client, server }
}

/// rustls at that side after the handshake, and the secrets.
pub(crate) fn rustls(side: Side, suite: usize) -> (Rustls, Arc<Secrets>) {
    let secrets = Arc::new(Secrets::default());
    let mut both = [Side::Client, Side::Server].map(|side| {
        let mut configs = configs(suite);
        configs.client.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
        Rustls::new(side, configs)
    });
    let [client, server] = &mut both;
    for _ in 0..2 {
        server.read(&client.flush()).unwrap();
        client.read(&server.flush()).unwrap();
    }
    let [client, server] = both;
    (if side == Side::Client { client } else { server }, secrets)
}

/// Our record layer at that side after the handshake.
pub(crate) fn record_layer(side: Side, suite: usize) -> RecordLayer {
    let log = Arc::new(TrafficSecretLog::default());
    let records = match Handshake::complete(side, configs(suite), log.clone()).0 {
        Handshake::Client(session) => log.client_record_layer(session),
        Handshake::Server(session) => log.server_record_layer(session),
    };
    records.unwrap()
}
