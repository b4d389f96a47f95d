//! A handshake of rustls that always ends in the same secrets: its random numbers, key exchange and signatures are constants.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

use portcullis_record::{RecordLayer, TrafficSecretLog};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::UnbufferedServerConnection;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, KeyLog, NamedGroup, ServerConfig, ServerConnection,
    SignatureAlgorithm, SignatureScheme, SupportedCipherSuite,
};

const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// The end of the connection that is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

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

fn configs(suite: usize) -> (ClientConfig, ServerConfig) {
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
    (client, server)
}

fn name() -> ServerName<'static> {
    ServerName::try_from("anything.test").unwrap()
}

/// rustls' buffered connection.
pub(crate) enum Rustls {
    Client(ClientConnection),
    Server(ServerConnection),
}

impl Rustls {
    /// Processes one record and appends its plaintext.
    pub(crate) fn read(&mut self, mut record: &[u8], received: &mut Vec<u8>) -> Result<(), Error> {
        while !record.is_empty() {
            let (count, state) = match self {
                Self::Client(it) => (it.read_tls(&mut record).unwrap(), it.process_new_packets()),
                Self::Server(it) => (it.read_tls(&mut record).unwrap(), it.process_new_packets()),
            };
            if count == 0 {
                // It reads nothing after close_notify.
                break;
            }
            let mut plaintext = vec![0; state?.plaintext_bytes_to_read()];
            match self {
                Self::Client(it) => it.reader().read_exact(&mut plaintext).unwrap(),
                Self::Server(it) => it.reader().read_exact(&mut plaintext).unwrap(),
            }
            received.extend(plaintext);
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Client(it) => {
                while it.wants_write() {
                    it.write_tls(&mut out).unwrap();
                }
            }
            Self::Server(it) => {
                while it.wants_write() {
                    it.write_tls(&mut out).unwrap();
                }
            }
        }
        out
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Client(it) => it.writer().write_all(bytes).unwrap(),
            Self::Server(it) => it.writer().write_all(bytes).unwrap(),
        }
        self.flush()
    }
}

/// rustls at that side after the handshake, and the secrets.
pub(crate) fn rustls(side: Side, suite: usize) -> (Rustls, Arc<Secrets>) {
    let (mut client, server) = configs(suite);
    let secrets = Arc::new(Secrets::default());
    client.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
    let mut client = Rustls::Client(ClientConnection::new(Arc::new(client), name()).unwrap());
    let mut server = Rustls::Server(ServerConnection::new(Arc::new(server)).unwrap());
    for _ in 0..2 {
        server.read(&client.flush(), &mut Vec::new()).unwrap();
        client.read(&server.flush(), &mut Vec::new()).unwrap();
    }
    (if side == Side::Client { client } else { server }, secrets)
}

enum Unbuffered {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl Unbuffered {
    fn advance(&mut self, mut incoming: Vec<u8>) -> Vec<u8> {
        let mut to_send = Vec::new();
        loop {
            let (discard, is_done) = match self {
                Self::Client(session) => step(session.process_tls_records(&mut incoming), &mut to_send),
                Self::Server(session) => step(session.process_tls_records(&mut incoming), &mut to_send),
            };
            incoming.drain(..discard);
            if is_done {
                return to_send;
            }
        }
    }
}

fn step<Data>(
    UnbufferedStatus { discard, state, .. }: UnbufferedStatus<'_, '_, Data>,
    to_send: &mut Vec<u8>,
) -> (usize, bool) {
    match state.unwrap() {
        ConnectionState::EncodeTlsData(mut message) => {
            let mut record = vec![0; 20_000];
            let len = message.encode(&mut record).unwrap();
            to_send.extend(&record[..len]);
        }
        ConnectionState::TransmitTlsData(message) => message.done(),
        _ => return (discard, true),
    }
    (discard, false)
}

/// Our record layer at that side after the handshake.
pub(crate) fn record_layer(side: Side, suite: usize) -> RecordLayer {
    let (mut client, mut server) = configs(suite);
    let log = Arc::new(TrafficSecretLog::default());
    let (mut session, mut other) = match side {
        Side::Client => {
            (client.key_log, client.enable_secret_extraction) = (log.clone(), true);
            let session = UnbufferedClientConnection::new(Arc::new(client), name()).unwrap();
            (Unbuffered::Client(session), Rustls::Server(ServerConnection::new(Arc::new(server)).unwrap()))
        }
        Side::Server => {
            (server.key_log, server.enable_secret_extraction) = (log.clone(), true);
            let session = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
            (Unbuffered::Server(session), Rustls::Client(ClientConnection::new(Arc::new(client), name()).unwrap()))
        }
    };
    for _ in 0..3 {
        let answer = session.advance(other.flush());
        other.read(&answer, &mut Vec::new()).unwrap();
    }
    let records = match session {
        Unbuffered::Client(session) => log.client_record_layer(session),
        Unbuffered::Server(session) => log.server_record_layer(session),
    };
    records.unwrap()
}
