//! The messages that are allowed after the handshake, and their order (RFC 8446, sections 4.6, 5.1 and 6).
//!
//! Of a handshake message only type and length matter, and the one byte of a KeyUpdate. So nothing is reassembled: however
//! long a message is, and over however many records it is spread, five bytes of it are kept.

use rustls::{AlertDescription, ContentType, Error, HandshakeType, InvalidMessage, PeerMisbehaved};

use crate::error::{FatalError, LEVEL_WARNING};

/// A KeyUpdate with `update_not_requested`.
pub(crate) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// The longest handshake message; the limit of rustls.
const MAX_MESSAGE_LEN: u32 = 0xffff;
/// The most KeyUpdates in a row without application data in either direction. Each costs us more than the peer.
const MAX_KEY_UPDATES: u8 = 32;
/// The most records without content in a row.
const MAX_EMPTY_RECORDS: u8 = 32;
/// The most `user_canceled` alerts of a connection. They have no effect.
const MAX_WARNING_ALERTS: u8 = 4;

/// What the record layer has to do after a record.
pub(crate) enum Event {
    /// The first `len` bytes are the application's.
    ApplicationData {
        len: usize,
    },
    Nothing,
    CloseNotify,
    /// The next record is encrypted with the peer's next key.
    KeyUpdate {
        update_requested: bool,
    },
}

/// Validates the content of records and counts what has a limit.
pub(crate) struct PostHandshake {
    is_client: bool,
    partial: PartialMessage,
    key_updates: u8,
    empty_records: u8,
    warning_alerts: u8,
}

/// The state of a handshake message that is not complete.
#[derive(Clone, Copy, Eq, PartialEq)]
enum PartialMessage {
    None,
    /// `filled` of the four bytes of its header.
    Header {
        bytes: [u8; 4],
        filled: u8,
    },
    /// Its header, and all but `remaining` bytes of its body.
    Body {
        typ: HandshakeType,
        remaining: u32,
    },
}

impl PostHandshake {
    pub(crate) const fn new(is_client: bool) -> Self {
        Self { is_client, partial: PartialMessage::None, key_updates: 0, empty_records: 0, warning_alerts: 0 }
    }

    /// A peer that only receives may update its key as often as it gets data.
    pub(crate) const fn application_data_sent(&mut self) {
        self.key_updates = 0;
    }

    /// Validates the content of one record.
    pub(crate) fn process(&mut self, content_type: ContentType, content: &[u8]) -> Result<Event, FatalError> {
        if content_type != ContentType::Handshake && self.partial != PartialMessage::None {
            return Err(FatalError::misbehaved(PeerMisbehaved::MessageInterleavedWithHandshakeMessage));
        }
        match content_type {
            ContentType::ApplicationData if content.is_empty() => {
                self.empty_records += 1;
                if self.empty_records > MAX_EMPTY_RECORDS {
                    return Err(FatalError::misbehaved(PeerMisbehaved::TooManyEmptyFragments));
                }
                Ok(Event::Nothing)
            }
            ContentType::ApplicationData => {
                (self.key_updates, self.empty_records) = (0, 0);
                Ok(Event::ApplicationData { len: content.len() })
            }
            ContentType::Alert => self.process_alert(content),
            ContentType::Handshake => self.process_handshake(content),
            other => Err(FatalError::inappropriate(other)),
        }
    }

    fn process_alert(&mut self, content: &[u8]) -> Result<Event, FatalError> {
        let [level, description] = *content else {
            return Err(match content.len() {
                // Section 5.1: an alert is not empty and not fragmented, and a record holds one only.
                0 => FatalError::new(
                    AlertDescription::UnexpectedMessage,
                    Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload),
                ),
                1 => FatalError::malformed(InvalidMessage::MissingData("AlertDescription")),
                _ => FatalError::malformed(InvalidMessage::TrailingData("AlertMessagePayload")),
            });
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => Ok(Event::CloseNotify),
            AlertDescription::UserCanceled if level == LEVEL_WARNING => {
                self.warning_alerts += 1;
                if self.warning_alerts > MAX_WARNING_ALERTS {
                    return Err(FatalError::misbehaved(PeerMisbehaved::TooManyWarningAlertsReceived));
                }
                Ok(Event::Nothing)
            }
            // Section 6.2: all others end the connection, whatever their level.
            other => Err(FatalError { alert: None, error: Error::AlertReceived(other) }),
        }
    }

    fn process_handshake(&mut self, mut content: &[u8]) -> Result<Event, FatalError> {
        if content.is_empty() {
            return Err(FatalError::new(
                AlertDescription::UnexpectedMessage,
                Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload),
            ));
        }
        while let Some((byte, rest)) = content.split_first() {
            match self.partial {
                PartialMessage::None => {
                    self.partial = PartialMessage::Header { bytes: [*byte, 0, 0, 0], filled: 1 };
                    content = rest;
                }
                PartialMessage::Header { mut bytes, filled } => {
                    if let Some(next) = bytes.get_mut(usize::from(filled)) {
                        *next = *byte;
                    }
                    content = rest;
                    self.partial = match filled {
                        3.. => self.validate_message_header(bytes)?,
                        _ => PartialMessage::Header { bytes, filled: filled + 1 },
                    };
                }
                PartialMessage::Body { typ: HandshakeType::KeyUpdate, .. } => {
                    self.partial = PartialMessage::None;
                    return self.process_key_update(*byte, rest);
                }
                PartialMessage::Body { typ, remaining } => {
                    let present = u32::try_from(content.len()).map_or(remaining, |len| len.min(remaining));
                    content = content.get(present as usize..).unwrap_or_default();
                    self.partial = match remaining - present {
                        0 => PartialMessage::None,
                        remaining => PartialMessage::Body { typ, remaining },
                    };
                }
            }
        }
        Ok(Event::Nothing)
    }

    /// Whether a message with this header is allowed.
    fn validate_message_header(&self, [typ, high, middle, low]: [u8; 4]) -> Result<PartialMessage, FatalError> {
        let remaining = u32::from_be_bytes([0, high, middle, low]);
        let typ = HandshakeType::from(typ);
        match typ {
            HandshakeType::KeyUpdate if remaining == 1 => {}
            HandshakeType::KeyUpdate => return Err(FatalError::malformed(InvalidMessage::InvalidKeyUpdate)),
            // Sessions are never resumed, so a ticket is skipped. It cannot be empty.
            HandshakeType::NewSessionTicket if self.is_client && remaining > MAX_MESSAGE_LEN => {
                return Err(FatalError::malformed(InvalidMessage::HandshakePayloadTooLarge));
            }
            HandshakeType::NewSessionTicket if self.is_client && remaining > 0 => {}
            HandshakeType::NewSessionTicket if self.is_client => {
                return Err(FatalError::malformed(InvalidMessage::MissingData("NewSessionTicket")));
            }
            got_type => {
                let mut expect_types = vec![HandshakeType::KeyUpdate];
                expect_types.extend(self.is_client.then_some(HandshakeType::NewSessionTicket));
                let error = Error::InappropriateHandshakeMessage { expect_types, got_type };
                return Err(FatalError::new(AlertDescription::UnexpectedMessage, error));
            }
        }
        Ok(PartialMessage::Body { typ, remaining })
    }

    fn process_key_update(&mut self, request_update: u8, rest: &[u8]) -> Result<Event, FatalError> {
        let update_requested = match request_update {
            0 => false,
            1 => true,
            _ => {
                let error = Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate);
                return Err(FatalError::new(AlertDescription::IllegalParameter, error));
            }
        };
        // What follows is encrypted with another key, so it cannot be in this record (section 5.1).
        if !rest.is_empty() {
            return Err(FatalError::misbehaved(PeerMisbehaved::KeyEpochWithPendingFragment));
        }
        self.key_updates += 1;
        if self.key_updates > MAX_KEY_UPDATES {
            return Err(FatalError::misbehaved(PeerMisbehaved::TooManyKeyUpdateRequests));
        }
        Ok(Event::KeyUpdate { update_requested })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FATAL: u8 = 2;

    fn alert(content: &[u8]) -> Result<Event, FatalError> {
        PostHandshake::new(true).process(ContentType::Alert, content)
    }

    #[test]
    fn an_alert_that_is_not_two_bytes_says_what_is_wrong_with_it() {
        let wrong = |content: &[u8]| {
            let Err(error) = alert(content) else { panic!("{content:?} is an alert") };
            (error.alert, error.error)
        };
        let decode_error = Some(AlertDescription::DecodeError);
        let empty = Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload);
        assert_eq!(wrong(&[]), (Some(AlertDescription::UnexpectedMessage), empty));
        let short = Error::InvalidMessage(InvalidMessage::MissingData("AlertDescription"));
        assert_eq!(wrong(&[LEVEL_WARNING]), (decode_error, short));
        let long = Error::InvalidMessage(InvalidMessage::TrailingData("AlertMessagePayload"));
        assert_eq!(wrong(&[LEVEL_WARNING, 0, 0]), (decode_error, long));
    }

    #[test]
    fn user_canceled_has_no_effect_as_a_warning_and_ends_the_connection_as_a_fatal_alert() {
        let user_canceled = u8::from(AlertDescription::UserCanceled);
        assert!(matches!(alert(&[LEVEL_WARNING, user_canceled]), Ok(Event::Nothing)));
        let Err(error) = alert(&[FATAL, user_canceled]) else { panic!("it goes on") };
        assert_eq!(error.error, Error::AlertReceived(AlertDescription::UserCanceled));
    }
}
