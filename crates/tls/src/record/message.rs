//! What may come in a record behind the handshake, and in which order (RFC 8446, sections 4.6, 5.1 and 6).
//!
//! Of a message of the handshake only the type and length, and the one byte of a key update, are of interest. So nothing is
//! gathered: however long a message is, and over however many records it comes, what is kept of it are five bytes.

use rustls::{AlertDescription, ContentType, Error, HandshakeType, InvalidMessage, PeerMisbehaved};

use super::{Fatal, WARNING};

/// A key update that asks for none in return.
pub(super) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// The longest message; what rustls bounds it to.
const MAX_MESSAGE: u32 = 0xffff;
/// How many key updates may come with no data between them. Each costs us more than the peer.
pub(super) const MAX_KEY_UPDATES: u8 = 32;
/// How many records with nothing in them may follow each other.
const MAX_EMPTY: u8 = 32;
/// How often a peer may say `user_canceled`, which means nothing.
const MAX_WARNINGS: u8 = 4;

/// What a record asks for.
pub(super) enum Event {
    /// So many bytes are the app's.
    Data(usize),
    Nothing,
    /// Nothing more comes.
    Closed,
    /// The next record is sealed with the peer's next key.
    KeyUpdate {
        /// Ours is to be changed as well.
        answer: bool,
    },
}

/// Where in the peer's messages we are.
pub(super) struct Messages {
    is_client: bool,
    fragment: Fragment,
    key_updates: u8,
    empty: u8,
    warnings: u8,
}

/// A message of which only a part came.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Fragment {
    None,
    /// Of the four bytes in front of it, so many.
    Front {
        bytes: [u8; 4],
        have: u8,
    },
    /// So many bytes of it are still to come.
    Body {
        kind: HandshakeType,
        left: u32,
    },
}

impl Messages {
    pub(super) const fn new(is_client: bool) -> Self {
        Self { is_client, fragment: Fragment::None, key_updates: 0, empty: 0, warnings: 0 }
    }

    /// Judges the content of one record.
    pub(super) fn take(&mut self, kind: ContentType, content: &[u8]) -> Result<Event, Fatal> {
        if kind != ContentType::Handshake && self.fragment != Fragment::None {
            return Err(Fatal::misbehaved(PeerMisbehaved::MessageInterleavedWithHandshakeMessage));
        }
        match kind {
            ContentType::ApplicationData if content.is_empty() => {
                self.empty += 1;
                if self.empty > MAX_EMPTY {
                    return Err(Fatal::misbehaved(PeerMisbehaved::TooManyEmptyFragments));
                }
                Ok(Event::Nothing)
            }
            ContentType::ApplicationData => {
                (self.key_updates, self.empty) = (0, 0);
                Ok(Event::Data(content.len()))
            }
            ContentType::Alert => self.alert(content),
            ContentType::Handshake => self.handshake(content),
            other => Err(Fatal::inappropriate(other)),
        }
    }

    fn alert(&mut self, content: &[u8]) -> Result<Event, Fatal> {
        let [level, description] = *content else {
            return Err(match content.len() {
                // Section 5.1: no alert is empty, none is cut in two, and two do not share a record.
                0 => Fatal::new(
                    AlertDescription::UnexpectedMessage,
                    Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload),
                ),
                1 => Fatal::malformed(InvalidMessage::MissingData("AlertDescription")),
                _ => Fatal::malformed(InvalidMessage::TrailingData("AlertMessagePayload")),
            });
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => Ok(Event::Closed),
            AlertDescription::UserCanceled if level == WARNING => {
                self.warnings += 1;
                if self.warnings > MAX_WARNINGS {
                    return Err(Fatal::misbehaved(PeerMisbehaved::TooManyWarningAlertsReceived));
                }
                Ok(Event::Nothing)
            }
            // Section 6.2: all others end the connection, whatever their level says.
            other => Err(Fatal { alert: None, error: Error::AlertReceived(other) }),
        }
    }

    fn handshake(&mut self, mut content: &[u8]) -> Result<Event, Fatal> {
        if content.is_empty() {
            return Err(Fatal::new(
                AlertDescription::UnexpectedMessage,
                Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload),
            ));
        }
        while let Some((byte, rest)) = content.split_first() {
            match self.fragment {
                Fragment::None => {
                    self.fragment = Fragment::Front { bytes: [*byte, 0, 0, 0], have: 1 };
                    content = rest;
                }
                Fragment::Front { mut bytes, have } => {
                    if let Some(place) = bytes.get_mut(usize::from(have)) {
                        *place = *byte;
                    }
                    content = rest;
                    self.fragment = match have {
                        3.. => self.front(bytes)?,
                        _ => Fragment::Front { bytes, have: have + 1 },
                    };
                }
                Fragment::Body { kind: HandshakeType::KeyUpdate, .. } => {
                    self.fragment = Fragment::None;
                    return self.key_update(*byte, rest);
                }
                Fragment::Body { kind, left } => {
                    let here = u32::try_from(content.len()).map_or(left, |length| length.min(left));
                    content = content.get(here as usize..).unwrap_or_default();
                    self.fragment = match left - here {
                        0 => Fragment::None,
                        left => Fragment::Body { kind, left },
                    };
                }
            }
        }
        Ok(Event::Nothing)
    }

    /// Whether a message that begins like this may come.
    fn front(&self, [kind, high, middle, low]: [u8; 4]) -> Result<Fragment, Fatal> {
        let left = u32::from_be_bytes([0, high, middle, low]);
        let kind = HandshakeType::from(kind);
        match kind {
            HandshakeType::KeyUpdate if left == 1 => {}
            HandshakeType::KeyUpdate => return Err(Fatal::malformed(InvalidMessage::InvalidKeyUpdate)),
            // We resume nothing; what the server offers for that is passed over. It cannot be empty.
            HandshakeType::NewSessionTicket if self.is_client && left > MAX_MESSAGE => {
                return Err(Fatal::malformed(InvalidMessage::HandshakePayloadTooLarge));
            }
            HandshakeType::NewSessionTicket if self.is_client && left > 0 => {}
            HandshakeType::NewSessionTicket if self.is_client => {
                return Err(Fatal::malformed(InvalidMessage::MissingData("NewSessionTicket")));
            }
            got_type => {
                let mut expect_types = vec![HandshakeType::KeyUpdate];
                expect_types.extend(self.is_client.then_some(HandshakeType::NewSessionTicket));
                let error = Error::InappropriateHandshakeMessage { expect_types, got_type };
                return Err(Fatal::new(AlertDescription::UnexpectedMessage, error));
            }
        }
        Ok(Fragment::Body { kind, left })
    }

    fn key_update(&mut self, request: u8, behind: &[u8]) -> Result<Event, Fatal> {
        let answer = match request {
            0 => false,
            1 => true,
            _ => {
                let error = Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate);
                return Err(Fatal::new(AlertDescription::IllegalParameter, error));
            }
        };
        // What follows is sealed with another key, so it cannot be in this record (section 5.1).
        if !behind.is_empty() {
            return Err(Fatal::misbehaved(PeerMisbehaved::KeyEpochWithPendingFragment));
        }
        self.key_updates += 1;
        if self.key_updates > MAX_KEY_UPDATES {
            return Err(Fatal::misbehaved(PeerMisbehaved::TooManyKeyUpdateRequests));
        }
        Ok(Event::KeyUpdate { answer })
    }
}
