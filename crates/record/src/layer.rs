//! [`RecordLayer`]: both directions of a connection.

use rustls::{AlertDescription, ContentType, Error};

use crate::buffer::{PlaintextSink, SendBuffer};
use crate::error::{FatalError, LEVEL_FATAL, LEVEL_WARNING};
use crate::frame::{
    CONTENT_TYPE_LEN, HEADER_LEN, MAX_PLAINTEXT_LEN, TAG_LEN, decode_header, decode_inner_plaintext, encode_header,
};
use crate::post_handshake::{Event, KEY_UPDATE, PostHandshake};
use crate::traffic_key::TrafficKey;

/// The record layer of a connection whose handshake is complete.
pub struct RecordLayer {
    pub(crate) message_decrypter: TrafficKey,
    pub(crate) message_encrypter: TrafficKey,
    pub(crate) post_handshake: PostHandshake,
    /// The peer requested an update of our key. It is sent before the next application data, not at once: otherwise a peer
    /// that does not read could pile up answers on a connection that only receives.
    pub(crate) key_update_requested: bool,
    /// Nothing may follow it (section 6.1).
    pub(crate) has_sent_close_notify: bool,
}

/// The result of [`RecordLayer::read`].
#[derive(Debug)]
#[must_use]
pub struct ReadOutcome {
    /// How many bytes were processed. The rest is an incomplete record, or follows the peer's close_notify or an error.
    pub consumed: usize,
    /// The peer ended its direction with close_notify.
    pub has_received_close_notify: bool,
    /// The error that ends the connection. The alert that informs the peer is in the send buffer.
    pub result: Result<(), Error>,
}

impl RecordLayer {
    /// Decrypts the complete records at the start of `incoming`, in place where `plaintext` has no space.
    pub fn read(
        &mut self,
        incoming: &mut [u8],
        plaintext: &mut impl PlaintextSink,
        to_send: &mut SendBuffer,
    ) -> ReadOutcome {
        let mut outcome = ReadOutcome { consumed: 0, has_received_close_notify: false, result: Ok(()) };
        while !outcome.has_received_close_notify {
            let rest = incoming.get_mut(outcome.consumed..).unwrap_or_default();
            match self.read_record(rest, plaintext, &mut outcome.has_received_close_notify) {
                Ok(Some(len)) => outcome.consumed += len,
                Ok(None) => break,
                Err(fatal) => {
                    if let Some(alert) = fatal.alert.filter(|_| !self.has_sent_close_notify) {
                        // If even the alert cannot be encrypted, the connection ends without it.
                        let _ = self.encrypt(to_send, ContentType::Alert, &[LEVEL_FATAL, u8::from(alert)]);
                    }
                    outcome.result = Err(fatal.error);
                    break;
                }
            }
        }
        outcome
    }

    /// Encrypts `data` as application data.
    ///
    /// # Errors
    /// When the sequence numbers of a key are used up.
    pub fn write(&mut self, data: &[u8], to_send: &mut SendBuffer) -> Result<(), Error> {
        for chunk in data.chunks(MAX_PLAINTEXT_LEN) {
            if self.key_update_requested || self.message_encrypter.is_at_confidentiality_limit() {
                self.key_update_requested = false;
                self.encrypt(to_send, ContentType::Handshake, &KEY_UPDATE)?;
                self.message_encrypter.update()?;
            }
            self.encrypt(to_send, ContentType::ApplicationData, chunk)?;
            self.post_handshake.application_data_sent();
        }
        Ok(())
    }

    /// Ends our direction with close_notify.
    ///
    /// # Errors
    /// When the sequence numbers of a key are used up.
    pub fn send_close_notify(&mut self, to_send: &mut SendBuffer) -> Result<(), Error> {
        self.has_sent_close_notify = true;
        self.encrypt(to_send, ContentType::Alert, &[LEVEL_WARNING, u8::from(AlertDescription::CloseNotify)])
    }

    pub(crate) fn encrypt(
        &mut self,
        to_send: &mut SendBuffer,
        content_type: ContentType,
        content: &[u8],
    ) -> Result<(), Error> {
        let payload_len = content.len() + CONTENT_TYPE_LEN + TAG_LEN;
        let record = to_send.space(HEADER_LEN + payload_len);
        let (header, payload) = record.split_first_chunk_mut().ok_or(Error::EncryptError)?;
        *header = encode_header(payload_len)?;
        let (ciphertext, type_and_tag) = payload.split_at_mut_checked(content.len()).ok_or(Error::EncryptError)?;
        self.message_encrypter.seal(header, content, ciphertext, u8::from(content_type), type_and_tag)?;
        to_send.advance(HEADER_LEN + payload_len);
        Ok(())
    }

    /// Processes the record at the start of `bytes` and returns its length; `None` if it is incomplete.
    fn read_record(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut impl PlaintextSink,
        has_received_close_notify: &mut bool,
    ) -> Result<Option<usize>, FatalError> {
        let Some((header, rest)) = bytes.split_first_chunk_mut::<HEADER_LEN>() else {
            return Ok(None);
        };
        let payload_len = decode_header(*header)?;
        let Some((ciphertext, tag)) =
            rest.get_mut(..payload_len).and_then(|payload| payload.split_last_chunk_mut::<TAG_LEN>())
        else {
            return Ok(None);
        };
        // Decrypted directly to its destination, if it fits there with content type and padding. Whether it is application data
        // is known only afterwards.
        let event = if let Some(space) = plaintext.space(ciphertext.len()) {
            self.message_decrypter.open_into(header, ciphertext, tag, space)?;
            let (content_type, content) = decode_inner_plaintext(space)?;
            let event = self.post_handshake.process(content_type, content)?;
            if let Event::ApplicationData { len } = event {
                plaintext.advance(len);
            }
            event
        } else {
            self.message_decrypter.open_in_place(header, ciphertext, tag)?;
            let (content_type, content) = decode_inner_plaintext(ciphertext)?;
            let event = self.post_handshake.process(content_type, content)?;
            if let Event::ApplicationData { .. } = event {
                plaintext.append(content);
            }
            event
        };
        match event {
            Event::ApplicationData { .. } | Event::Nothing => {}
            Event::CloseNotify => *has_received_close_notify = true,
            Event::KeyUpdate { update_requested } => {
                self.message_decrypter
                    .update()
                    .map_err(|error| FatalError::new(AlertDescription::InternalError, error))?;
                self.key_update_requested |= update_requested;
            }
        }
        Ok(Some(HEADER_LEN + payload_len))
    }
}
