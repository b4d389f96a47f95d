//! What an admitted connection holds besides its share of the connection limit.

use portcullis_identity::SpiffeId;
use portcullis_net::admission::{CountPermit, KeyedPermit};

/// The permits of one connection, for its peer and its listener. A pointer, since it is held as long as the connection is
/// open; null if neither is limited.
#[derive(Debug, Default)]
pub(crate) struct Permits(Option<Box<Held>>);

#[derive(Debug, Default)]
struct Held {
    _peer: Option<KeyedPermit<SpiffeId>>,
    _listener: CountPermit,
}

impl Permits {
    pub(crate) fn of_peer(permit: KeyedPermit<SpiffeId>) -> Self {
        Self(Some(Box::new(Held { _peer: Some(permit), ..Held::default() })))
    }

    /// Adds the permit of the listener.
    pub(crate) fn with_listener(mut self, permit: CountPermit) -> Self {
        if permit.is_limited() {
            self.0.get_or_insert_default()._listener = permit;
        }
        self
    }
}
