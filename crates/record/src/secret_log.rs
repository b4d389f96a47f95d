//! Gets the traffic secrets of a handshake from rustls.
//!
//! rustls extracts keys, but it keeps the secrets from which the next keys are derived in a structure that holds the rest of the
//! handshake too. It also passes them to a key log. So each connection has a key log of its own in memory, which is dropped
//! with the handshake. Nothing else is logged, and nothing else reads it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{Error, ExtractedSecrets, KeyLog, SupportedCipherSuite};

use crate::layer::RecordLayer;
use crate::post_handshake::PostHandshake;
use crate::traffic_key::{Suite, TrafficKey, TrafficSecret};

/// The key log of one connection, from which its [`RecordLayer`] gets the traffic secrets.
///
/// Set it as `key_log` of the connection's configuration, together with `enable_secret_extraction`.
#[derive(Default)]
pub struct TrafficSecretLog(Mutex<LoggedSecrets>);

#[derive(Default)]
struct LoggedSecrets {
    client: Option<TrafficSecret>,
    server: Option<TrafficSecret>,
}

const CLIENT_LABEL: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_LABEL: &str = "SERVER_TRAFFIC_SECRET_0";

impl TrafficSecretLog {
    /// Replaces a client whose handshake is complete, and that has processed no record after the server's Finished.
    ///
    /// # Errors
    /// When the protocol is not TLS 1.3, a secret is missing, or a KeyUpdate was processed.
    pub fn client_record_layer(&self, session: UnbufferedClientConnection) -> Result<RecordLayer, Error> {
        let suite = session.negotiated_cipher_suite();
        let (extracted, _) = session.dangerous_into_kernel_connection()?;
        self.record_layer(suite, &extracted, true)
    }

    /// Replaces a server whose handshake is complete, and that has processed no record after the client's Finished.
    ///
    /// # Errors
    /// When the protocol is not TLS 1.3, a secret is missing, or a KeyUpdate was processed.
    pub fn server_record_layer(&self, session: UnbufferedServerConnection) -> Result<RecordLayer, Error> {
        let suite = session.negotiated_cipher_suite();
        let (extracted, _) = session.dangerous_into_kernel_connection()?;
        self.record_layer(suite, &extracted, false)
    }

    fn record_layer(
        &self,
        suite: Option<SupportedCipherSuite>,
        ExtractedSecrets { tx, rx }: &ExtractedSecrets,
        is_client: bool,
    ) -> Result<RecordLayer, Error> {
        let suite = suite.and_then(Suite::new).ok_or_else(missing)?;
        let LoggedSecrets { client, server } =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let (client, server) = (client.ok_or_else(missing)?, server.ok_or_else(missing)?);
        let (ours, peers) = if is_client { (client, server) } else { (server, client) };
        let message_decrypter = TrafficKey::from_handshake(suite, peers, rx)?;
        let message_encrypter = TrafficKey::from_handshake(suite, ours, tx)?;
        Ok(RecordLayer {
            message_decrypter,
            message_encrypter,
            post_handshake: PostHandshake::new(is_client),
            key_update_requested: false,
            has_sent_close_notify: false,
        })
    }
}

fn missing() -> Error {
    Error::General("the handshake left no usable traffic secrets".to_owned())
}

impl KeyLog for TrafficSecretLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match label {
            CLIENT_LABEL => secrets.client = Some(TrafficSecret::new(secret)),
            SERVER_LABEL => secrets.server = Some(TrafficSecret::new(secret)),
            _ => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT_LABEL | SERVER_LABEL)
    }
}

impl fmt::Debug for TrafficSecretLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficSecretLog(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_traffic_secrets_are_logged_and_none_is_printed() {
        let log = TrafficSecretLog::default();
        for label in [CLIENT_LABEL, SERVER_LABEL] {
            assert!(log.will_log(label));
            log.log(label, &[], &[0x5e; 32]);
        }
        for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "EXPORTER_SECRET", ""] {
            assert!(!log.will_log(label), "{label}");
        }
        assert_eq!(format!("{log:?}"), "TrafficSecretLog(..)");
    }
}
