//! The record protocol of TLS 1.3 (RFC 8446, section 5) behind the handshake.
//!
//! rustls does the handshake, and with it everything that decides who the peer is. What follows is short and the same for
//! each byte: seal, open, and four kinds of messages. rustls copies each record twice in each direction and keeps three
//! kilobytes for it in every connection, the handshake's configuration and the peer's chain among them. Here a record is
//! sealed and opened straight between the reader's buffer and the socket's, and a connection that is idle is its two keys.
//!
//! TLS 1.2 stays with rustls; see [`crate::session`]. Every deviation of the peer ends the connection with the alert that RFC
//! 8446 names. `record/tests.rs` compares what this makes of a stream of records, good or bad, with what rustls makes of it.

mod key;
mod message;
mod secrets;

use aws_lc_rs::aead::MAX_TAG_LEN;
use rustls::{AlertDescription, ContentType, Error, InvalidMessage, PeerMisbehaved};

use crate::scratch::Outgoing;
use crate::session::Output;
use key::TrafficKey;
use message::{Event, Messages};

pub(crate) use secrets::TrafficSecrets;

const HEADER: usize = 5;
/// What is in one record at most, without the byte for its type (section 5.1).
const MAX_PLAINTEXT: usize = 1 << 14;
/// What follows a header at most (section 5.2).
const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + 256;
/// What is in each record beside its content: the byte for its type, and the tag.
const TYPE: usize = 1;
/// Every suite's tag has this length.
const TAG: usize = MAX_TAG_LEN;

/// Both directions of a connection whose handshake is done.
pub(crate) struct Records {
    reading: TrafficKey,
    writing: TrafficKey,
    messages: Messages,
    /// The peer has asked for new keys of ours. They come before the next bytes, and not at once: who only listens would
    /// pile up answers for a peer that does not read.
    update_due: bool,
    /// Nothing more is said (section 6.1).
    closed: bool,
}

/// What ends a connection, and what is said to the peer about it. A peer that has ended it is told nothing.
struct Fatal {
    alert: Option<AlertDescription>,
    error: Error,
}

impl Fatal {
    const fn new(alert: AlertDescription, error: Error) -> Self {
        Self { alert: Some(alert), error }
    }

    const fn misbehaved(what: PeerMisbehaved) -> Self {
        Self::new(AlertDescription::UnexpectedMessage, Error::PeerMisbehaved(what))
    }

    const fn malformed(what: InvalidMessage) -> Self {
        Self::new(AlertDescription::DecodeError, Error::InvalidMessage(what))
    }

    fn inappropriate(got_type: ContentType) -> Self {
        if got_type == ContentType::ChangeCipherSpec {
            return Self::misbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec);
        }
        let expect_types = vec![ContentType::ApplicationData, ContentType::Alert, ContentType::Handshake];
        Self::new(AlertDescription::UnexpectedMessage, Error::InappropriateMessage { expect_types, got_type })
    }
}

/// How long the record at the front is, its header included; `None` while its header is not there.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [_, _, _, high, low, ..] => Some(HEADER + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

impl Records {
    /// Opens what came, and says how much of it is done with; the rest is the beginning of a record.
    ///
    /// # Errors
    /// What ends the connection. The alert about it is in `output.to_send`.
    pub(crate) fn read(&mut self, incoming: &mut [u8], output: &mut Output<'_, '_>) -> (usize, Result<(), Error>) {
        let mut done = 0;
        let result = loop {
            match self.record(incoming.get_mut(done..).unwrap_or_default(), output) {
                Ok(Some(length)) => done += length,
                Ok(None) => break Ok(()),
                Err(fatal) => {
                    if let Some(alert) = fatal.alert.filter(|_| !self.closed) {
                        // If even that cannot be sealed, the connection just ends.
                        let _ = self.seal(&mut output.to_send, ContentType::Alert, &[FATAL, u8::from(alert)]);
                    }
                    break Err(fatal.error);
                }
            }
            if output.peer_closed {
                break Ok(());
            }
        };
        (done, result)
    }

    /// Seals `data`.
    ///
    /// # Errors
    /// When no key may seal more.
    pub(crate) fn write(&mut self, data: &[u8], to_send: &mut Outgoing) -> Result<(), Error> {
        for chunk in data.chunks(MAX_PLAINTEXT) {
            if self.update_due || self.writing.is_worn() {
                self.update_due = false;
                self.seal(to_send, ContentType::Handshake, &message::KEY_UPDATE)?;
                self.writing.update()?;
            }
            self.seal(to_send, ContentType::ApplicationData, chunk)?;
        }
        Ok(())
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// When no key may seal more.
    pub(crate) fn close(&mut self, to_send: &mut Outgoing) -> Result<(), Error> {
        self.closed = true;
        self.seal(to_send, ContentType::Alert, &[WARNING, u8::from(AlertDescription::CloseNotify)])
    }

    fn seal(&mut self, to_send: &mut Outgoing, kind: ContentType, content: &[u8]) -> Result<(), Error> {
        let length = content.len() + TYPE + TAG;
        let room = to_send.room(HEADER + length);
        let (header, body) = room.split_first_chunk_mut().ok_or(Error::EncryptError)?;
        *header = front(length)?;
        let (ciphertext, rest) = body.split_at_mut_checked(content.len()).ok_or(Error::EncryptError)?;
        self.writing.seal(header, content, ciphertext, u8::from(kind), rest)?;
        to_send.add(HEADER + length);
        Ok(())
    }

    /// Opens the record at the front and says how long it was; `None` if it is not there as a whole.
    fn record(&mut self, bytes: &mut [u8], output: &mut Output<'_, '_>) -> Result<Option<usize>, Fatal> {
        let Some((header, rest)) = bytes.split_first_chunk_mut::<HEADER>() else {
            return Ok(None);
        };
        let length = check(*header)?;
        let Some((ciphertext, tag)) = rest.get_mut(..length).and_then(|record| record.split_last_chunk_mut::<TAG>())
        else {
            return Ok(None);
        };
        // Straight to where it is wanted, if it fits there with its type and padding; what it is shows only afterwards.
        if let Some(room) = output.room(ciphertext.len()) {
            self.reading.open_to(header, ciphertext, tag, room)?;
            let (kind, content) = inner(room)?;
            match self.messages.take(kind, content)? {
                Event::Data(length) => output.took(length),
                event => self.follow(event, output)?,
            }
        } else {
            self.reading.open(header, ciphertext, tag)?;
            let (kind, content) = inner(ciphertext)?;
            match self.messages.take(kind, content)? {
                Event::Data(_) => output.receive(content),
                event => self.follow(event, output)?,
            }
        }
        Ok(Some(HEADER + length))
    }

    /// Does what a message asks for that is not data.
    fn follow(&mut self, event: Event, output: &mut Output<'_, '_>) -> Result<(), Fatal> {
        match event {
            Event::Data(_) | Event::Nothing => {}
            Event::Closed => output.peer_closed = true,
            Event::KeyUpdate { answer } => {
                self.reading.update().map_err(|error| Fatal::new(AlertDescription::InternalError, error))?;
                self.update_due |= answer;
            }
        }
        Ok(())
    }
}

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// A record looks like application data of TLS 1.2, whatever is in it (section 5.2).
fn front(length: usize) -> Result<[u8; HEADER], Error> {
    let [high, low] = u16::try_from(length).map_err(|_| Error::EncryptError)?.to_be_bytes();
    Ok([u8::from(ContentType::ApplicationData), 3, 3, high, low])
}

/// The length that a header tells, if such a record may come.
fn check(header: [u8; HEADER]) -> Result<usize, Fatal> {
    let [kind, major, _, high, low] = header;
    // What is not sealed has no place behind the handshake; an attacker on the way could have put it there.
    if kind != u8::from(ContentType::ApplicationData) {
        return Err(Fatal::inappropriate(ContentType::from(kind)));
    }
    if major != 3 {
        return Err(Fatal::malformed(InvalidMessage::UnknownProtocolVersion));
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        length if length > MAX_CIPHERTEXT => {
            Err(Fatal::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord))
        }
        // Too short to have been sealed at all.
        length if length < TYPE + TAG => Err(Fatal::new(AlertDescription::BadRecordMac, Error::DecryptError)),
        length => Ok(length),
    }
}

/// Takes padding and type off (section 5.4).
fn inner(opened: &[u8]) -> Result<(ContentType, &[u8]), Fatal> {
    if opened.len() > MAX_PLAINTEXT + TYPE {
        return Err(Fatal::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord));
    }
    match opened.iter().rposition(|byte| *byte != 0).and_then(|end| opened.get(..=end)?.split_last()) {
        Some((kind, content)) => Ok((ContentType::from(*kind), content)),
        None => Err(Fatal::misbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext)),
    }
}

#[cfg(test)]
mod tests;
