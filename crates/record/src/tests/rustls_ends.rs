//! The ends of a handshake by rustls: buffered, or unbuffered up to the point where a record layer takes over. The fuzz target
//! `record_stream` includes this file too, so nothing of this crate is in it.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ClientConnection, Error, KeyLog, ServerConfig, ServerConnection};

/// An end of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// The configurations of both ends.
pub(crate) struct Configs {
    pub(crate) client: ClientConfig,
    pub(crate) server: ServerConfig,
}

/// rustls' buffered connection.
pub(crate) enum Rustls {
    Client(ClientConnection),
    Server(ServerConnection),
}

/// rustls' unbuffered connection during the handshake.
pub(crate) enum Handshake {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("anything.test").unwrap()
}

impl Rustls {
    pub(crate) fn new(side: Side, configs: Configs) -> Self {
        match side {
            Side::Client => Self::Client(ClientConnection::new(Arc::new(configs.client), server_name()).unwrap()),
            Side::Server => Self::Server(ServerConnection::new(Arc::new(configs.server)).unwrap()),
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match self {
            Self::Client(it) => it.is_handshaking(),
            Self::Server(it) => it.is_handshaking(),
        }
    }

    /// Processes records and appends their plaintext, also that of records before the one that failed.
    pub(crate) fn read_into(&mut self, mut bytes: &[u8], received: &mut Vec<u8>) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (count, state) = match self {
                Self::Client(it) => (it.read_tls(&mut bytes).unwrap(), it.process_new_packets()),
                Self::Server(it) => (it.read_tls(&mut bytes).unwrap(), it.process_new_packets()),
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

    /// Processes records and returns their plaintext.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut received = Vec::new();
        self.read_into(bytes, &mut received).map(|()| received)
    }

    /// The records that it has to send.
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
        let (mut rest, mut out) = (bytes, Vec::new());
        while !rest.is_empty() {
            let count = match self {
                Self::Client(it) => it.writer().write(rest).unwrap(),
                Self::Server(it) => it.writer().write(rest).unwrap(),
            };
            rest = &rest[count..];
            out.extend(self.flush());
        }
        out
    }

    pub(crate) fn refresh(&mut self) {
        match self {
            Self::Client(it) => it.refresh_traffic_keys().unwrap(),
            Self::Server(it) => it.refresh_traffic_keys().unwrap(),
        }
    }

    pub(crate) fn close(&mut self) -> Vec<u8> {
        match self {
            Self::Client(it) => it.send_close_notify(),
            Self::Server(it) => it.send_close_notify(),
        }
        self.flush()
    }
}

impl Handshake {
    /// A completed handshake, with this end unbuffered and the other one buffered. `key_log` gets the secrets of this end.
    pub(crate) fn complete(side: Side, mut configs: Configs, key_log: Arc<dyn KeyLog>) -> (Self, Rustls) {
        let (mut ours, mut theirs) = match side {
            Side::Client => {
                (configs.client.key_log, configs.client.enable_secret_extraction) = (key_log, true);
                let client = UnbufferedClientConnection::new(Arc::new(configs.client.clone()), server_name()).unwrap();
                (Self::Client(client), Rustls::new(Side::Server, configs))
            }
            Side::Server => {
                (configs.server.key_log, configs.server.enable_secret_extraction) = (key_log, true);
                let server = UnbufferedServerConnection::new(Arc::new(configs.server.clone())).unwrap();
                (Self::Server(server), Rustls::new(Side::Client, configs))
            }
        };
        let mut incoming = Vec::new();
        for _ in 0..10 {
            theirs.read(&ours.advance(&mut incoming)).unwrap();
            incoming.extend(theirs.flush());
        }
        assert!(incoming.is_empty() && !theirs.is_handshaking());
        (ours, theirs)
    }

    /// Processes what the peer sent and returns the answer.
    pub(crate) fn advance(&mut self, incoming: &mut Vec<u8>) -> Vec<u8> {
        let mut to_send = Vec::new();
        loop {
            let (discard, is_done) = match self {
                Self::Client(session) => step(session.process_tls_records(incoming), &mut to_send),
                Self::Server(session) => step(session.process_tls_records(incoming), &mut to_send),
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
