//! rustls' state machine without buffers: one step at a time over bytes that the caller holds.
//!
//! rustls' other interface keeps 4 KiB for reading in every connection, for as long as it lives, and reads no more than
//! that at once. With this one a connection that is idle holds no buffer at all, and a busy one reads into a large buffer
//! that all connections of a thread share.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, Error};

use crate::scratch::Outgoing;

/// What a record is longer than what is in it, at most, in any version and suite that we speak.
const RECORD_OVERHEAD: usize = 64;
/// What fits into one record.
const RECORD_PAYLOAD: usize = 16 * 1024;

/// Either side of a connection.
pub(crate) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Where everything that comes out goes.
pub(crate) struct Output<'t> {
    /// To be sent, in order, and before whatever is encrypted later.
    pub(crate) to_send: Outgoing,
    /// Takes what was received and decrypted, and says how much of it.
    pub(crate) take: &'t mut dyn FnMut(&[u8]) -> usize,
    /// What was not taken.
    pub(crate) received: Vec<u8>,
    /// The peer has ended its direction with close_notify.
    pub(crate) peer_closed: bool,
}

impl<'t> Output<'t> {
    pub(crate) const fn new(to_send: Outgoing, take: &'t mut dyn FnMut(&[u8]) -> usize) -> Self {
        Self { to_send, take, received: Vec::new(), peer_closed: false }
    }

    fn receive(&mut self, payload: &[u8]) {
        let taken = if self.received.is_empty() { (self.take)(payload) } else { 0 };
        self.received.extend_from_slice(payload.get(taken..).unwrap_or_default());
    }
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
    pub(crate) const fn is_client(&self) -> bool {
        matches!(self, Self::Client(_))
    }

    pub(crate) fn state(&self) -> &CommonState {
        match self {
            Self::Client(session) => session,
            Self::Server(session) => session,
        }
    }

    /// Processes what came, and says how much of it is done with; the rest is to be given again, with more behind it.
    ///
    /// # Errors
    /// What ends the connection. An alert about it may be in `output.to_send`.
    pub(crate) fn read(&mut self, incoming: &mut [u8], output: &mut Output<'_>) -> (usize, Result<(), Error>) {
        self.run(incoming, output, &Then::Read)
    }

    /// Encrypts `data`. What came and is not done with has to be given here too.
    ///
    /// # Errors
    /// What ends the connection.
    pub(crate) fn write(
        &mut self,
        incoming: &mut [u8],
        data: &[u8],
        output: &mut Output<'_>,
    ) -> (usize, Result<(), Error>) {
        self.run(incoming, output, &Then::Write(data))
    }

    /// Ends our direction.
    ///
    /// # Errors
    /// What ends the connection otherwise.
    pub(crate) fn close(&mut self, incoming: &mut [u8], output: &mut Output<'_>) -> (usize, Result<(), Error>) {
        self.run(incoming, output, &Then::Close)
    }

    fn run(&mut self, incoming: &mut [u8], output: &mut Output<'_>, then: &Then<'_>) -> (usize, Result<(), Error>) {
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

    fn step(&mut self, incoming: &mut [u8], output: &mut Output<'_>, then: &Then<'_>) -> (usize, Result<Next, Error>) {
        match self {
            Self::Client(session) => settle(session.process_tls_records(incoming), output, then),
            Self::Server(session) => settle(session.process_tls_records(incoming), output, then),
        }
    }
}

fn settle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    output: &mut Output<'_>,
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
