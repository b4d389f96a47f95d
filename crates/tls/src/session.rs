//! The TLS state of a connection: rustls during the handshake, then a [`RecordLayer`], or still rustls with TLS 1.2.
//!
//! rustls is used through its unbuffered interface: one step at a time over bytes that the caller holds. Its buffered interface
//! keeps a read buffer of 4 KiB in every connection for its whole life, and reads no more than that at once. With the unbuffered
//! one an idle connection holds no buffer, and a busy one reads into a large buffer that all connections of a thread share.

use std::sync::{Arc, OnceLock};

use portcullis_record::{PlaintextSink, RecordLayer, SendBuffer, TrafficSecretLog, record_len};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{AlertDescription, CommonState, Error, ProtocolVersion};
use tokio::io::ReadBuf;

/// The most that encryption adds to the content of a record, in any version and suite.
const MAX_RECORD_OVERHEAD: usize = 64;
/// The most application data in one record.
const MAX_RECORD_CONTENT: usize = 16 * 1024;

/// The TLS state of a connection.
pub(crate) enum Session {
    /// The handshake, and all of TLS 1.2. Boxed, since it is large and most connections need it for a short time only.
    Rustls(Box<Rustls>),
    /// TLS 1.3 after the handshake.
    Records(RecordLayer),
}

/// rustls' state, and the key log from which the [`RecordLayer`] gets its secrets.
pub(crate) struct Rustls {
    side: Side,
    secrets: Arc<TrafficSecretLog>,
    /// How many bytes of complete records rustls has seen and not consumed in the handshake. It has noted positions in them, and
    /// has to see them again.
    seen: usize,
    refusal: Option<Arc<RefusalAlert>>,
}

/// The alert for a refusal of the ClientHello, where rustls would send one that misleads the client. It is set while the hello is
/// processed, before there are keys, so it is sent as plaintext.
#[derive(Debug, Default)]
pub(crate) struct RefusalAlert(OnceLock<AlertDescription>);

impl RefusalAlert {
    pub(crate) fn set(&self, alert: AlertDescription) {
        // A hello is refused once.
        let _set_before = self.0.set(alert);
    }

    pub(crate) fn get(&self) -> Option<AlertDescription> {
        self.0.get().copied()
    }
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Everything that processing produces.
pub(crate) struct Output<'o, 'b> {
    /// To be sent in order, before anything that is encrypted later.
    pub(crate) to_send: SendBuffer,
    pub(crate) received: Received<'o, 'b>,
    /// The peer ended its direction with close_notify.
    pub(crate) peer_closed: bool,
}

/// Application data that was received.
pub(crate) struct Received<'o, 'b> {
    /// The reader's buffer, which is filled first.
    into: Option<&'o mut ReadBuf<'b>>,
    /// What it had no room for.
    pub(crate) rest: Vec<u8>,
}

impl<'o, 'b> Output<'o, 'b> {
    pub(crate) const fn new(to_send: SendBuffer, into: Option<&'o mut ReadBuf<'b>>) -> Self {
        Self { to_send, received: Received { into, rest: Vec::new() }, peer_closed: false }
    }
}

impl PlaintextSink for Received<'_, '_> {
    fn space(&mut self, len: usize) -> Option<&mut [u8]> {
        let into = self.into.as_mut().filter(|into| self.rest.is_empty() && into.remaining() >= len)?;
        Some(into.initialize_unfilled_to(len))
    }

    fn advance(&mut self, len: usize) {
        if let Some(into) = self.into.as_mut() {
            into.advance(len);
        }
    }

    fn append(&mut self, plaintext: &[u8]) {
        let copied = match self.into.as_mut() {
            Some(into) if self.rest.is_empty() => copy_into(into, plaintext),
            _ => 0,
        };
        self.rest.extend_from_slice(plaintext.get(copied..).unwrap_or_default());
    }
}

/// Copies as much as there is room for, and returns how much that is.
pub(crate) fn copy_into(buf: &mut ReadBuf<'_>, bytes: &[u8]) -> usize {
    let count = bytes.len().min(buf.remaining());
    buf.put_slice(bytes.get(..count).unwrap_or_default());
    count
}

/// What to do once all received data is processed.
enum Request<'d> {
    Read,
    /// Encrypt this data.
    Write(&'d [u8]),
    /// End our direction with close_notify.
    Close,
}

/// Whether rustls has to be called again.
enum Step {
    Continue,
    Done,
}

impl Session {
    /// A client before its ClientHello; `secrets` is the key log of its configuration.
    pub(crate) fn client(session: UnbufferedClientConnection, secrets: Arc<TrafficSecretLog>) -> Self {
        Self::Rustls(Box::new(Rustls { side: Side::Client(session), secrets, seen: 0, refusal: None }))
    }

    /// A server before its handshake; `secrets` is the key log of its configuration.
    pub(crate) fn server(session: UnbufferedServerConnection, secrets: Arc<TrafficSecretLog>) -> Self {
        Self::Rustls(Box::new(Rustls { side: Side::Server(session), secrets, seen: 0, refusal: None }))
    }

    /// The same, with an alert of the caller once it is set.
    pub(crate) fn with_refusal(mut self, alert: Arc<RefusalAlert>) -> Self {
        if let Self::Rustls(rustls) = &mut self {
            rustls.refusal = Some(alert);
        }
        self
    }

    /// Whether rustls runs it as a client.
    pub(crate) const fn is_client(&self) -> bool {
        matches!(self, Self::Rustls(rustls) if matches!(rustls.side, Side::Client(_)))
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self, Self::Rustls(rustls) if rustls.state().is_handshaking())
    }

    /// What the handshake negotiated, as long as rustls runs the session.
    pub(crate) fn state(&self) -> Option<&CommonState> {
        match self {
            Self::Rustls(rustls) => Some(rustls.state()),
            Self::Records(_) => None,
        }
    }

    /// Replaces rustls by a [`RecordLayer`] after a handshake of TLS 1.3. Received bytes that were not consumed have to be passed
    /// to [`Session::read`] again.
    ///
    /// # Errors
    /// When rustls has not left the secrets, which it has after every handshake of TLS 1.3.
    pub(crate) fn established(self) -> Result<Self, Error> {
        match self {
            Self::Rustls(rustls) if rustls.is_tls13() => {
                let Rustls { side, secrets, .. } = *rustls;
                let records = match side {
                    Side::Client(session) => secrets.client_record_layer(session),
                    Side::Server(session) => secrets.server_record_layer(session),
                };
                records.map(Self::Records)
            }
            other => Ok(other),
        }
    }

    /// Processes received bytes and returns how many were consumed; the rest has to be passed again, with more behind it.
    ///
    /// # Errors
    /// The error that ends the connection. The alert that informs the peer is in `output.to_send`.
    pub(crate) fn read(&mut self, incoming: &mut [u8], output: &mut Output<'_, '_>) -> (usize, Result<(), Error>) {
        match self {
            Self::Rustls(rustls) => rustls.run(incoming, output, &Request::Read),
            Self::Records(records) => {
                let outcome = records.read(incoming, &mut output.received, &mut output.to_send);
                output.peer_closed |= outcome.has_received_close_notify;
                (outcome.consumed, outcome.result)
            }
        }
    }

    /// Encrypts `data`. What was received and not consumed has to be passed here too.
    ///
    /// # Errors
    /// The error that ends the connection.
    pub(crate) fn write(
        &mut self,
        incoming: &mut [u8],
        data: &[u8],
        output: &mut Output<'_, '_>,
    ) -> (usize, Result<(), Error>) {
        match self {
            Self::Rustls(rustls) => rustls.run(incoming, output, &Request::Write(data)),
            Self::Records(records) => (0, records.write(data, &mut output.to_send)),
        }
    }

    /// Ends our direction.
    ///
    /// # Errors
    /// The error that ends the connection.
    pub(crate) fn close(&mut self, incoming: &mut [u8], output: &mut Output<'_, '_>) -> (usize, Result<(), Error>) {
        match self {
            Self::Rustls(rustls) => rustls.run(incoming, output, &Request::Close),
            Self::Records(records) => (0, records.send_close_notify(&mut output.to_send)),
        }
    }
}

impl Rustls {
    fn state(&self) -> &CommonState {
        match &self.side {
            Side::Client(session) => session,
            Side::Server(session) => session,
        }
    }

    fn is_tls13(&self) -> bool {
        self.state().protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Processes `incoming` and returns how much of it was consumed. A handshake of TLS 1.3 ends with the record that completes
    /// it: what follows is left for the [`RecordLayer`], which starts with the first record and the first key.
    fn run(
        &mut self,
        incoming: &mut [u8],
        output: &mut Output<'_, '_>,
        request: &Request<'_>,
    ) -> (usize, Result<(), Error>) {
        let mut consumed = 0;
        let (mut seen, mut visible) = self.next_record(incoming, self.seen);
        loop {
            let (discard, step) = self.step(incoming.get_mut(consumed..visible).unwrap_or_default(), output, request);
            consumed += discard;
            match step {
                Ok(Step::Continue) => {}
                Ok(Step::Done) if visible < incoming.len() && (self.state().is_handshaking() || !self.is_tls13()) => {
                    (seen, visible) = self.next_record(incoming, visible);
                }
                Ok(Step::Done) => {
                    self.seen = seen.saturating_sub(consumed);
                    return (consumed, Ok(()));
                }
                Err(error) => {
                    if let Some(alert) = self.refusal.as_ref().and_then(|refusal| refusal.get()) {
                        output.to_send.append(&fatal_alert(alert));
                        return (consumed, Err(error));
                    }
                    // Takes the alert about it. No step beyond that: it would process what follows the failure. The bytes are
                    // the same, for the positions that it noted.
                    while self.state().wants_write() {
                        let rest = incoming.get_mut(consumed..visible).unwrap_or_default();
                        if !matches!(self.step(rest, output, &Request::Read), (0, Ok(Step::Continue))) {
                            break;
                        }
                    }
                    return (consumed, Err(error));
                }
            }
        }
    }

    /// The end of the next complete record, and how much of `incoming` rustls may see next: up to there in the handshake,
    /// otherwise everything. It always sees an incomplete record, so that it can refuse its header.
    fn next_record(&self, incoming: &[u8], seen: usize) -> (usize, usize) {
        match incoming.get(seen..).and_then(record_len).map(|len| seen + len) {
            Some(end) if end <= incoming.len() && self.state().is_handshaking() => (end, end),
            _ => (seen, incoming.len()),
        }
    }

    fn step(
        &mut self,
        incoming: &mut [u8],
        output: &mut Output<'_, '_>,
        request: &Request<'_>,
    ) -> (usize, Result<Step, Error>) {
        match &mut self.side {
            Side::Client(session) => advance(session.process_tls_records(incoming), output, request),
            Side::Server(session) => advance(session.process_tls_records(incoming), output, request),
        }
    }
}

/// A record with a fatal alert, in plaintext.
fn fatal_alert(alert: AlertDescription) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, alert.into()]
}

fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    output: &mut Output<'_, '_>,
    request: &Request<'_>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    output.received.append(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Continue),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(&mut output.to_send, MAX_RECORD_OVERHEAD, |space| match data.encode(space) {
                Ok(written) => Ok(Ok(written)),
                Err(EncodeError::InsufficientSize(needed)) => Err(needed),
                Err(EncodeError::AlreadyEncoded) => {
                    Ok(Err(Error::General("a handshake message was encoded twice".to_owned())))
                }
            })
            .map(|()| Step::Continue)
        }
        // It is sent before anything that comes later, as is required.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Continue)
        }
        Ok(ConnectionState::PeerClosed) => {
            output.peer_closed = true;
            Ok(Step::Continue)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match request {
            Request::Read => Ok(Step::Done),
            Request::Write(data) => encode(&mut output.to_send, max_encrypted_len(data.len()), |space| {
                size_or_error(traffic.encrypt(data, space))
            })
            .map(|()| Step::Done),
            Request::Close => encode(&mut output.to_send, MAX_RECORD_OVERHEAD, |space| {
                size_or_error(traffic.queue_close_notify(space))
            })
            .map(|()| Step::Done),
        },
        Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => match request {
            Request::Read | Request::Close => Ok(Step::Done),
            Request::Write(_) => Err(Error::HandshakeNotComplete),
        },
        // Early data is disabled, and an unknown state must not be skipped.
        Ok(_) => Err(Error::General("rustls entered an unexpected state".to_owned())),
    };
    (discard, step)
}

/// Lets `write` append to `buffer`: first with the expected space, then with as much as it requires.
fn encode(
    buffer: &mut SendBuffer,
    expected_len: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<Result<usize, Error>, InsufficientSizeError>,
) -> Result<(), Error> {
    let mut len = expected_len;
    loop {
        match write(buffer.space(len)) {
            Ok(written) => return written.map(|written| buffer.advance(written)),
            Err(InsufficientSizeError { required_size }) if required_size > len => len = required_size,
            Err(_) => return Err(Error::General("rustls refused the space that it required".to_owned())),
        }
    }
}

fn size_or_error(result: Result<usize, EncryptError>) -> Result<Result<usize, Error>, InsufficientSizeError> {
    match result {
        Ok(written) => Ok(Ok(written)),
        Err(EncryptError::InsufficientSize(needed)) => Err(needed),
        Err(EncryptError::EncryptExhausted) => Ok(Err(Error::EncryptError)),
    }
}

/// The longest records for so many bytes, including a KeyUpdate before them.
const fn max_encrypted_len(len: usize) -> usize {
    len + (len / MAX_RECORD_CONTENT + 2) * MAX_RECORD_OVERHEAD
}

#[cfg(test)]
mod tests;
