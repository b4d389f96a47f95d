//! Whether this sidecar is still in the network namespace of its holder, and what to do when it is not.
//!
//! A container that joined the network of another one keeps the old namespace when that one is restarted: without an interface, for
//! ever. The engine joins the new one only when it starts the container again. So a sidecar whose holder is back with another namespace
//! ends. It does not end before, because the engine refuses to start what joins a container that does not run, and does not try again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::holder::{Holder, Namespace, RETRY};
use crate::uncaptured;

/// After this time without a holder somebody should look. Engines start both within a second.
const LATE: Duration = Duration::from_secs(30);
/// How long a sidecar that is to end waits for its holder to end as well: `docker-compose restart` stops all at the same time.
const TOGETHER: Duration = Duration::from_millis(300);
/// How long it then waits for the new holder. An engine that shuts down gives containers 10 s, and starts no holder.
const RETURN: Duration = Duration::from_secs(5);

/// Where this sidecar is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// No holder was named: there is nothing to watch.
    NoHolder,
    /// It has not answered yet, so the redirect rules may not be installed.
    Waiting,
    /// In the holder's namespace, which has its rules.
    Attached,
    /// The holder has ended, and its interfaces with it.
    Lost,
    /// The holder is back, with another namespace.
    Replaced,
}

/// The state, which the watch sets and others read.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    state: Arc<watch::Sender<State>>,
    holder: Option<PathBuf>,
}

impl Attachment {
    pub(super) fn new(holder: Option<PathBuf>) -> Self {
        let state = if holder.is_some() { State::Waiting } else { State::NoHolder };
        Self { state: Arc::new(watch::Sender::new(state)), holder }
    }

    /// Why the sidecar is not ready because of it.
    pub(super) fn pending(&self) -> Option<String> {
        let socket = self.holder.as_ref()?.display();
        match *self.state.borrow() {
            State::NoHolder | State::Attached => None,
            State::Waiting => Some(format!("redirect rules (no holder of the network namespace answers on {socket})")),
            State::Lost => Some("network (the holder of the network namespace has ended)".to_owned()),
            State::Replaced => Some("network (the holder has another network namespace now)".to_owned()),
        }
    }

    /// Watches the holder until it has another namespace. `app` is what the app is called, for the log.
    pub(super) async fn watch(self, app: String) {
        let Some(socket) = self.holder.clone() else { return };
        let own = match Namespace::own() {
            Ok(own) => own,
            Err(error) => {
                tracing::error!(%error, "/proc/self/ns/net cannot be read, so a lost network would not be noticed");
                return;
            }
        };
        let late = sleep(LATE);
        tokio::pin!(late);
        loop {
            match Holder::ask(&socket).await {
                Ok(mut holder) if holder.namespace == own => {
                    self.state.send_replace(State::Attached);
                    tracing::info!(namespace = %own, "in the network namespace of the holder, behind its redirect rules");
                    holder.ended().await;
                    self.state.send_replace(State::Lost);
                    tracing::error!(
                        "the holder of this network namespace has ended: app and sidecar have no network. The sidecar ends as soon as \
                         the holder is back, so that the container engine starts it in the new namespace"
                    );
                }
                Ok(holder) => {
                    left_behind(&own, &holder.namespace, &app);
                    self.state.send_replace(State::Replaced);
                    return;
                }
                Err(error) => tokio::select! {
                    () = sleep(RETRY) => {}
                    () = &mut late, if *self.state.borrow() == State::Waiting && !late.is_elapsed() => {
                        tracing::warn!(socket = %socket.display(), %error, "no holder of the network namespace answers: is it running?");
                    }
                },
            }
        }
    }

    /// Until the holder has another namespace.
    pub(super) async fn replaced(&self) {
        self.becomes(|state| state == State::Replaced).await;
    }

    /// Until the holder has ended.
    pub(super) async fn lost(&self) {
        self.becomes(|state| matches!(state, State::Lost | State::Replaced)).await;
    }

    /// If the holder ends together with this sidecar, until the new one is there: `docker-compose restart` then finds it.
    pub(super) async fn outlast_holder(&self) {
        if self.holder.is_some() && timeout(TOGETHER, self.lost()).await.is_ok() {
            let _not_back = timeout(RETURN, self.replaced()).await;
        }
    }

    async fn becomes(&self, wanted: impl Fn(State) -> bool) {
        let mut state = self.state.subscribe();
        // The sender is our own, so it is there.
        let _state = state.wait_for(|state| wanted(*state)).await;
    }
}

/// The sidecar is started again by the engine. The app is not: it has not ended, and nothing ends it.
fn left_behind(own: &Namespace, new: &Namespace, app: &str) {
    match uncaptured::app() {
        Some(socket) => tracing::error!(
            %own, %new,
            "this network namespace was replaced by another one: the sidecar ends, and the container engine starts it there. The app's \
             container is still here, without a network ({socket}). Run `docker-compose restart {app}`"
        ),
        None => tracing::error!(
            %own, %new,
            "this network namespace was replaced by another one: the sidecar ends, and the container engine starts it there. If the \
             app's container runs, it has no network. Run `docker-compose restart {app}`"
        ),
    }
}
