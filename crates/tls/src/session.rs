//! Who speaks TLS for a connection: rustls as long as the handshake lasts, then [`Records`], or still rustls in TLS 1.2.
//!
//! rustls' state machine is used without its buffers: one step at a time over bytes that the caller holds. Its other interface
//! keeps 4 KiB for reading in every connection, for as long as it lives, and reads no more than that at once. With this one a
//! connection that is idle holds no buffer at all, and a busy one reads into a large buffer that all connections of a thread
//! share.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, Error, ProtocolVersion};
use tokio::io::ReadBuf;

use crate::record::{self, Records, TrafficSecrets};
use crate::scratch::Outgoing;

/// What a record is longer than what is in it, at most, in any version and suite that we speak.
const RECORD_OVERHEAD: usize = 64;
/// What fits into one record.
const RECORD_PAYLOAD: usize = 16 * 1024;

/// What drives a connection.
pub(crate) enum Session {
    /// The handshake, and everything of TLS 1.2. In a box: it is large, and for most connections short.
    Rustls(Box<Rustls>),
    /// TLS 1.3 behind the handshake.
    Records(Records),
}

/// rustls' state, and where it leaves the secrets that [`Records`] go on with.
pub(crate) struct Rustls {
    side: Side,
    secrets: Arc<TrafficSecrets>,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Where everything that comes out goes.
pub(crate) struct Output<'o, 'b> {
    /// To be sent, in order, and before whatever is encrypted later.
    pub(crate) to_send: Outgoing,
    /// Takes what was received and decrypted, as far as it has room.
    into: Option<&'o mut ReadBuf<'b>>,
    /// What was not taken.
    pub(crate) received: Vec<u8>,
    /// The peer has ended its direction with close_notify.
    pub(crate) peer_closed: bool,
}

impl<'o, 'b> Output<'o, 'b> {
    pub(crate) const fn new(to_send: Outgoing, into: Option<&'o mut ReadBuf<'b>>) -> Self {
        Self { to_send, into, received: Vec::new(), peer_closed: false }
    }

    /// Takes a copy of what was received.
    pub(crate) fn receive(&mut self, payload: &[u8]) {
        let taken = match self.into.as_mut() {
            Some(into) if self.received.is_empty() => put(into, payload),
            _ => 0,
        };
        self.received.extend_from_slice(payload.get(taken..).unwrap_or_default());
    }

    /// Room for so many bytes where they are wanted, if there is; see [`Output::took`].
    pub(crate) fn room(&mut self, length: usize) -> Option<&mut [u8]> {
        let into = self.into.as_mut().filter(|into| self.received.is_empty() && into.remaining() >= length)?;
        Some(into.initialize_unfilled_to(length))
    }

    /// So many bytes at the front of the room were received.
    pub(crate) fn took(&mut self, length: usize) {
        if let Some(into) = self.into.as_mut() {
            into.advance(length);
        }
    }
}

/// Adds as much as there is room for, and says how much that is.
pub(crate) fn put(buf: &mut ReadBuf<'_>, bytes: &[u8]) -> usize {
    let count = bytes.len().min(buf.remaining());
    buf.put_slice(bytes.get(..count).unwrap_or_default());
    count
}

/// What is done once nothing that came is left to be processed.
enum Then<'d> {
    /// Nothing.
    Read,
    /// Bytes are encrypted.
    Write(&'d [u8]),
    /// Our direction is ended with close_notify.
    Close,
}

/// Whether another step is to be made.
enum Next {
    Step,
    Enough,
}

impl Session {
    /// A client before its first word; `secrets` is the key log of its configuration.
    pub(crate) fn client(session: UnbufferedClientConnection, secrets: Arc<TrafficSecrets>) -> Self {
        Self::Rustls(Box::new(Rustls { side: Side::Client(session), secrets }))
    }

    /// A server before its first word; `secrets` is the key log of its configuration.
    pub(crate) fn server(session: UnbufferedServerConnection, secrets: Arc<TrafficSecrets>) -> Self {
        Self::Rustls(Box::new(Rustls { side: Side::Server(session), secrets }))
    }

    /// Whether it is the client of a handshake that goes on.
    pub(crate) const fn is_client(&self) -> bool {
        matches!(self, Self::Rustls(rustls) if matches!(rustls.side, Side::Client(_)))
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self, Self::Rustls(rustls) if rustls.state().is_handshaking())
    }

    /// What the handshake agreed on, as long as rustls is there to tell it.
    pub(crate) fn state(&self) -> Option<&CommonState> {
        match self {
            Self::Rustls(rustls) => Some(rustls.state()),
            Self::Records(_) => None,
        }
    }

    /// Goes on without rustls, where that can be, once the handshake is done. `rest` is what came and is not done with.
    ///
    /// Where that is more than the beginning of a record, it has to do with a part of a message that rustls has opened already and
    /// only rustls can read on from. Nobody sends such a thing so early, but may.
    ///
    /// # Errors
    /// When rustls has not left what is needed, which it has after each handshake of TLS 1.3.
    pub(crate) fn established(self, rest: &[u8]) -> Result<Self, Error> {
        let is_clear = record::length(rest).is_none_or(|length| length > rest.len());
        match self {
            Self::Rustls(rustls) if is_clear && rustls.state().protocol_version() == Some(ProtocolVersion::TLSv1_3) => {
                let Rustls { side, secrets } = *rustls;
                let records = match side {
                    Side::Client(session) => secrets.client(session),
                    Side::Server(session) => secrets.server(session),
                };
                records.map(Self::Records)
            }
            other => Ok(other),
        }
    }

    /// Processes what came, and says how much of it is done with; the rest is to be given again, with more behind it.
    ///
    /// # Errors
    /// What ends the connection. An alert about it may be in `output.to_send`.
    pub(crate) fn read(&mut self, incoming: &mut [u8], output: &mut Output<'_, '_>) -> (usize, Result<(), Error>) {
        match self {
            Self::Rustls(rustls) => rustls.run(incoming, output, &Then::Read),
            Self::Records(records) => records.read(incoming, output),
        }
    }

    /// Encrypts `data`. What came and is not done with has to be given here too.
    ///
    /// # Errors
    /// What ends the connection.
    pub(crate) fn write(
        &mut self,
        incoming: &mut [u8],
        data: &[u8],
        output: &mut Output<'_, '_>,
    ) -> (usize, Result<(), Error>) {
        match self {
            Self::Rustls(rustls) => rustls.run(incoming, output, &Then::Write(data)),
            Self::Records(records) => (0, records.write(data, &mut output.to_send)),
        }
    }

    /// Ends our direction.
    ///
    /// # Errors
    /// What ends the connection otherwise.
    pub(crate) fn close(&mut self, incoming: &mut [u8], output: &mut Output<'_, '_>) -> (usize, Result<(), Error>) {
        match self {
            Self::Rustls(rustls) => rustls.run(incoming, output, &Then::Close),
            Self::Records(records) => (0, records.close(&mut output.to_send)),
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

    fn run(&mut self, incoming: &mut [u8], output: &mut Output<'_, '_>, then: &Then<'_>) -> (usize, Result<(), Error>) {
        let mut done = 0;
        loop {
            let (discard, next) = self.step(incoming.get_mut(done..).unwrap_or_default(), output, then);
            done += discard;
            match next {
                Ok(Next::Step) => {}
                Ok(Next::Enough) => return (done, Ok(())),
                Err(error) => {
                    // What there is to say to the peer about it. No step is made beyond that: it would process what
                    // came behind the failure. The bytes are the same, since places in them may have been noted.
                    while self.state().wants_write() {
                        let rest = incoming.get_mut(done..).unwrap_or_default();
                        if !matches!(self.step(rest, output, &Then::Read), (0, Ok(Next::Step))) {
                            break;
                        }
                    }
                    return (done, Err(error));
                }
            }
        }
    }

    fn step(
        &mut self,
        incoming: &mut [u8],
        output: &mut Output<'_, '_>,
        then: &Then<'_>,
    ) -> (usize, Result<Next, Error>) {
        match &mut self.side {
            Side::Client(session) => settle(session.process_tls_records(incoming), output, then),
            Side::Server(session) => settle(session.process_tls_records(incoming), output, then),
        }
    }
}

fn settle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    output: &mut Output<'_, '_>,
    then: &Then<'_>,
) -> (usize, Result<Next, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    output.receive(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Next::Step),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            append(&mut output.to_send, RECORD_OVERHEAD, |space| match data.encode(space) {
                Ok(written) => Ok(Ok(written)),
                Err(EncodeError::InsufficientSize(needed)) => Err(needed),
                Err(EncodeError::AlreadyEncoded) => Ok(Err(Error::General("encoded twice".to_owned()))),
            })
            .map(|()| Next::Step)
        }
        // It is sent before anything that comes later, which is all that this asks for.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Next::Step)
        }
        Ok(ConnectionState::PeerClosed) => {
            output.peer_closed = true;
            Ok(Next::Step)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match then {
            Then::Read => Ok(Next::Enough),
            Then::Write(data) => {
                append(&mut output.to_send, encrypted(data.len()), |space| fit(traffic.encrypt(data, space)))
                    .map(|()| Next::Enough)
            }
            Then::Close => append(&mut output.to_send, RECORD_OVERHEAD, |space| fit(traffic.queue_close_notify(space)))
                .map(|()| Next::Enough),
        },
        Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => match then {
            Then::Read | Then::Close => Ok(Next::Enough),
            Then::Write(_) => Err(Error::HandshakeNotComplete),
        },
        // Early data is off, and of a state that we do not know nothing good can come.
        Ok(_) => Err(Error::General("a state that was not asked for".to_owned())),
    };
    (discard, next)
}

/// Has `write` add to the end of `buffer`: first with room for what is expected, then for what it says it needs.
fn append(
    buffer: &mut Outgoing,
    expected: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<Result<usize, Error>, InsufficientSizeError>,
) -> Result<(), Error> {
    let mut room = expected;
    loop {
        match write(buffer.room(room)) {
            Ok(written) => return written.map(|written| buffer.add(written)),
            Err(InsufficientSizeError { required_size }) if required_size > room => room = required_size,
            Err(_) => return Err(Error::General("no room is enough".to_owned())),
        }
    }
}

fn fit(result: Result<usize, EncryptError>) -> Result<Result<usize, Error>, InsufficientSizeError> {
    match result {
        Ok(written) => Ok(Ok(written)),
        Err(EncryptError::InsufficientSize(needed)) => Err(needed),
        Err(EncryptError::EncryptExhausted) => Ok(Err(Error::EncryptError)),
    }
}

/// How much room the records for so many bytes take at most, a key update before them included.
const fn encrypted(length: usize) -> usize {
    length + (length / RECORD_PAYLOAD + 2) * RECORD_OVERHEAD
}
