//! How the secrets of a connection come out of its handshake.
//!
//! rustls hands out keys, but keeps the secrets that the next keys are made from in a structure that holds everything else of
//! the handshake too. They are also given to a key log; so each connection has a log of its own, which is this, in memory, and
//! gone with the handshake. Nothing else is ever written to it or reads it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{Error, ExtractedSecrets, KeyLog, SupportedCipherSuite};
use zeroize::Zeroizing;

use super::Records;
use super::key::{Suite, TrafficKey};
use super::message::Messages;

/// The secret of one direction. On the heap, so that it is in one place, which is wiped.
pub(super) struct Secret(pub(super) Zeroizing<Vec<u8>>);

impl Secret {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(Zeroizing::new(secret.to_vec()))
    }

    pub(super) fn get(&self) -> &[u8] {
        &self.0
    }
}

/// The secrets of both directions, once the handshake has them.
#[derive(Default)]
pub(crate) struct TrafficSecrets(Mutex<Both>);

#[derive(Default)]
struct Both {
    client: Option<Secret>,
    server: Option<Secret>,
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

impl TrafficSecrets {
    /// Ends what rustls does for a client. Its handshake is done, and nothing that came is in its hands.
    ///
    /// # Errors
    /// When it was not TLS 1.3, or something is missing.
    pub(crate) fn client(&self, session: UnbufferedClientConnection) -> Result<Records, Error> {
        let suite = session.negotiated_cipher_suite();
        let (extracted, _) = session.dangerous_into_kernel_connection()?;
        self.records(suite, &extracted, true)
    }

    /// The same for a server.
    ///
    /// # Errors
    /// When it was not TLS 1.3, or something is missing.
    pub(crate) fn server(&self, session: UnbufferedServerConnection) -> Result<Records, Error> {
        let suite = session.negotiated_cipher_suite();
        let (extracted, _) = session.dangerous_into_kernel_connection()?;
        self.records(suite, &extracted, false)
    }

    fn records(
        &self,
        suite: Option<SupportedCipherSuite>,
        ExtractedSecrets { tx, rx }: &ExtractedSecrets,
        is_client: bool,
    ) -> Result<Records, Error> {
        let suite = suite.and_then(Suite::new).ok_or_else(missing)?;
        let Both { client, server } = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let (client, server) = (client.ok_or_else(missing)?, server.ok_or_else(missing)?);
        let (reading, writing) = if is_client { (server, client) } else { (client, server) };
        let reading = TrafficKey::reading(suite, reading, (rx.0, &rx.1))?;
        let (writing, update_due) = TrafficKey::writing(suite, writing, (tx.0, &tx.1))?;
        Ok(Records { reading, writing, messages: Messages::new(is_client), update_due, closed: false })
    }
}

fn missing() -> Error {
    Error::General("the handshake left no usable secrets".to_owned())
}

impl KeyLog for TrafficSecrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match label {
            CLIENT => both.client = Some(Secret::new(secret)),
            SERVER => both.server = Some(Secret::new(secret)),
            _ => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT | SERVER)
    }
}

impl fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficSecrets(..)")
    }
}
