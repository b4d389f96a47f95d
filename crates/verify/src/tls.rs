//! Attempts with TLS: a handshake, a request, and what came of it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;

use portcullis_tls::provider;
use portcullis_wire::CLIENT_ALPN;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, ProtocolVersion, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::connection::Connection;
use crate::observation::{End, Handshake, Observation, Stage};
use crate::plaintext::{KEPT, SETTLE, reset_or_broken};

/// What a client offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Alpn {
    Mesh,
    None,
}

/// A client that accepts any server and remembers sessions.
pub(crate) fn client(identity: Option<&Arc<CertifiedKey>>, alpn: Alpn) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match identity {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key)))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    if alpn == Alpn::Mesh {
        config.alpn_protocols = vec![CLIENT_ALPN.to_vec()];
    }
    Ok(config)
}

/// Whether the request goes before the handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Early {
    No,
    Try,
}

/// One connection.
pub(crate) fn exchange(
    connection: &mut Connection,
    config: &Arc<ClientConfig>,
    server: ServerName<'static>,
    request: &[u8],
    early: Early,
) -> Observation {
    match ClientConnection::new(Arc::clone(config), server) {
        Ok(tls) => Exchange::new(tls, connection, early, request).run(request),
        Err(error) => Observation::ended(Stage::Opening, End::Broken(error.to_string())),
    }
}

struct Exchange<'c> {
    tls: ClientConnection,
    connection: &'c mut Connection,
    stage: Stage,
    bytes: Vec<u8>,
    early_offered: bool,
    complete: bool,
}

impl<'c> Exchange<'c> {
    fn new(mut tls: ClientConnection, connection: &'c mut Connection, early: Early, request: &[u8]) -> Self {
        let early_offered = early == Early::Try
            && tls.early_data().is_some_and(|mut early| early.write(request).is_ok_and(|count| count > 0));
        connection.wait_to_the_end();
        Self { tls, connection, stage: Stage::Opening, bytes: Vec::new(), early_offered, complete: false }
    }

    fn run(mut self, request: &[u8]) -> Observation {
        let end = loop {
            self.flush();
            if !self.tls.is_handshaking() && !self.complete {
                self.complete = true;
                self.stage = Stage::Request;
                // The buffer of rustls takes it; what cannot be sent is seen when the answer is read.
                let _taken = self.tls.writer().write_all(request);
                let third = self.connection.third();
                self.connection.wait(third);
                continue;
            }
            if let Some(end) = self.step() {
                break end;
            }
        };
        let handshake = self.complete.then(|| Handshake {
            version: match self.tls.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            resumed: self.tls.handshake_kind() == Some(HandshakeKind::Resumed),
            early_data: self.early_offered.then(|| self.tls.is_early_data_accepted()),
        });
        let presented = self.tls.peer_certificates().unwrap_or_default();
        let presented = presented.iter().map(|der| der.clone().into_owned()).collect();
        Observation { presented, handshake, bytes: self.bytes, stage: self.stage, end }
    }

    /// Sends what is to be sent. A server that has gone is noticed by reading: its last words may still be there.
    fn flush(&mut self) {
        while self.tls.wants_write() && self.tls.write_tls(self.connection).is_ok_and(|count| count > 0) {}
    }

    /// Reads once; `Some` at the end.
    fn step(&mut self) -> Option<End> {
        match self.tls.read_tls(self.connection) {
            Ok(0) => return Some(End::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return None,
            Err(error) if error.kind() == ErrorKind::TimedOut => return self.waited(),
            Err(error) => return Some(reset_or_broken(&error)),
        }
        match self.tls.process_new_packets() {
            Err(Error::AlertReceived(alert)) => Some(End::Alert(alert)),
            Err(error) => {
                self.flush();
                Some(self.broken(&error))
            }
            Ok(state) => {
                let mut plain = vec![0; state.plaintext_bytes_to_read()];
                if self.tls.reader().read_exact(&mut plain).is_ok() && !plain.is_empty() {
                    self.bytes.extend(plain);
                    self.connection.wait(SETTLE);
                }
                match state.peer_has_closed() {
                    true => Some(End::CloseNotify),
                    false => (self.bytes.len() >= KEPT).then_some(End::Answered),
                }
            }
        }
    }

    /// Nothing came in time: enough was seen, or our direction is ended, or it is over.
    fn waited(&mut self) -> Option<End> {
        if !self.bytes.is_empty() {
            return Some(End::Answered);
        }
        if self.stage != Stage::Request || self.connection.is_over() {
            return Some(End::Silent);
        }
        self.stage = Stage::HalfClosed;
        self.tls.send_close_notify();
        self.flush();
        self.connection.half_close();
        self.connection.wait_to_the_end();
        None
    }

    fn broken(&mut self, error: &Error) -> End {
        // Change of cipher, alert, handshake and data: the content types of TLS.
        let is_tls = matches!(self.connection.head.first(), Some(0x14..=0x17));
        if is_tls || self.complete {
            return End::Broken(error.to_string());
        }
        self.bytes = std::mem::take(&mut self.connection.head);
        End::NotTls
    }
}

/// Accepts any certificate: this client wants to see how far it comes. The server must have the key.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
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
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
