//! The current credentials: one writer, many readers, replaced as a whole.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::credentials::Credentials;

/// The writer's handle. It accepts only [`Credentials`], which are validated.
#[derive(Debug)]
pub struct CredentialStore {
    current: Arc<ArcSwapOption<Credentials>>,
    generation: watch::Sender<u64>,
}

/// A reader's handle. Cheap to clone; each handshake takes the current snapshot and keeps it.
#[derive(Clone, Debug)]
pub struct CredentialReader {
    current: Arc<ArcSwapOption<Credentials>>,
    generation: watch::Receiver<u64>,
}

/// Why there are no credentials to use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unavailable {
    /// None have been published.
    #[error("there is no certificate yet")]
    NotLoaded,
    /// The current ones have expired; they are not offered any more.
    #[error("the certificate expired at {} and was not replaced", crate::utc(*not_after_unix))]
    Expired {
        /// When.
        not_after_unix: i64,
    },
}

impl CredentialStore {
    /// An empty store and a reader for it.
    #[must_use]
    pub fn new() -> (Self, CredentialReader) {
        let current = Arc::new(ArcSwapOption::empty());
        let (generation, seen) = watch::channel(0);
        (Self { current: Arc::clone(&current), generation }, CredentialReader { current, generation: seen })
    }

    /// Replaces the credentials for all later handshakes, and returns their generation.
    pub fn publish(&mut self, credentials: Credentials) -> u64 {
        let generation = self.generation.borrow().saturating_add(1);
        self.current.store(Some(Arc::new(credentials.with_generation(generation))));
        // Notified after the swap, so that a task that is woken reads the new ones.
        self.generation.send_replace(generation);
        generation
    }
}

impl CredentialReader {
    /// The newest credentials, for one connection.
    ///
    /// # Errors
    /// When there are none, or they have expired: a peer would refuse them anyway.
    pub fn current(&self) -> Result<Arc<Credentials>, Unavailable> {
        let credentials = self.current.load_full().ok_or(Unavailable::NotLoaded)?;
        match credentials.not_after_unix() {
            not_after_unix if credentials.is_expired() => Err(Unavailable::Expired { not_after_unix }),
            _ => Ok(credentials),
        }
    }

    /// The newest credentials even if they have expired, for status pages.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Credentials>> {
        self.current.load_full()
    }

    /// The number of the newest generation; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Notifies of every new generation.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }
}
