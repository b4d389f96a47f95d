//! Tunnels that are kept, one pool for each worker thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_hbone::StreamPermit;
use portcullis_telemetry::Ending;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::dial::{NotDialled, PoolKey, PooledTunnel, dial_tunnel, failed};
use crate::outcome::Reason;
use crate::state::ProxyState;

/// Tunnels that one worker has for one key, at most. Each has a hundred streams.
const MAX_TUNNELS: usize = 64;

thread_local! {
    /// A worker is a thread, and its tunnels are served by its tasks.
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool(HashMap<SocketAddr, Vec<Arc<PoolEntry>>>);

/// The tunnels for one key, and the one that is being dialled.
struct PoolEntry {
    key: PoolKey,
    tunnels: Mutex<Tunnels>,
}

#[derive(Default)]
struct Tunnels {
    open: Vec<PooledTunnel>,
    /// The tunnel that is being made. All connections that want one wait for it, and fail with it.
    dialling: Option<Dialling>,
}

/// What came of a dial, once there is something.
type Dialling = watch::Receiver<Option<Result<(), NotDialled>>>;

/// Whether the pool has a stream for a connection.
enum Availability {
    /// A stream of a tunnel that is open.
    Ready(StreamPermit, PooledTunnel),
    /// A tunnel is being dialled.
    Dialling(Dialling),
    /// A tunnel must be dialled.
    NeedsDial,
    /// All streams of [`MAX_TUNNELS`] tunnels are in use.
    Full,
}

impl Pool {
    fn entry(&mut self, key: &PoolKey) -> Arc<PoolEntry> {
        let all = self.0.entry(key.address).or_default();
        if let Some(found) = all.iter().find(|entry| entry.key.matches(key)) {
            return Arc::clone(found);
        }
        let entry = Arc::new(PoolEntry { key: key.clone(), tunnels: Mutex::default() });
        all.push(Arc::clone(&entry));
        // A new key is rare, so unused entries are removed then.
        self.0.retain(|_, all| {
            all.retain(|entry| Arc::strong_count(entry) > 1 || entry.is_in_use());
            !all.is_empty()
        });
        entry
    }
}

impl Tunnels {
    fn dialling(&self) -> Option<&Dialling> {
        // A dial whose task is gone without a word has failed.
        self.dialling.as_ref().filter(|dialling| dialling.has_changed().is_ok())
    }
}

impl PoolEntry {
    /// Its lock is never held across a wait.
    fn with<T>(&self, change: impl FnOnce(&mut Tunnels) -> T) -> T {
        change(&mut self.tunnels.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_in_use(&self) -> bool {
        self.with(|tunnels| tunnels.dialling().is_some() || tunnels.open.iter().any(|tunnel| tunnel.handle.is_open()))
    }

    fn availability(&self) -> Availability {
        self.with(|tunnels| {
            tunnels.open.retain(|tunnel| tunnel.handle.is_open());
            for tunnel in &tunnels.open {
                // Checked until one fits, and not for all: this runs for each connection.
                if self.key.credentials.still_trusts(&tunnel.facts.peer, &tunnel.path).is_err() {
                    tunnel.handle.close();
                } else if let Some(permit) = tunnel.handle.try_reserve() {
                    return Availability::Ready(permit, tunnel.clone());
                }
            }
            if let Some(dialling) = tunnels.dialling() {
                return Availability::Dialling(dialling.clone());
            }
            let open = tunnels.open.iter().filter(|tunnel| tunnel.handle.is_open()).count();
            if open >= MAX_TUNNELS { Availability::Full } else { Availability::NeedsDial }
        })
    }

    /// Makes a tunnel in a task of its own: whoever asked for it first may be gone before the others.
    fn begin_dial(self: &Arc<Self>, state: &Arc<ProxyState>) -> Dialling {
        let (done, dialling) = watch::channel(None);
        self.with(|tunnels| tunnels.dialling = Some(dialling.clone()));
        let (entry, state) = (Arc::clone(self), Arc::clone(state));
        drop(tokio::spawn(async move {
            let dialled = dial_tunnel(&state, &entry.key).await;
            let dialled = entry.with(|tunnels| {
                tunnels.dialling = None;
                dialled.map(|tunnel| tunnels.open.push(tunnel))
            });
            let _nobody_waits = done.send(Some(dialled));
        }));
        dialling
    }
}

/// A stream slot on a pooled tunnel whose peer is still trusted, or on a new tunnel. A burst dials one tunnel for as many connections
/// as it has streams; all of them wait for that dial, each until its own deadline.
///
/// # Errors
/// Why there is none.
pub(super) async fn acquire(
    state: &Arc<ProxyState>,
    key: &PoolKey,
) -> Result<(StreamPermit, PooledTunnel), NotDialled> {
    let timeouts = state.settings.timeouts;
    let deadline = Instant::now() + timeouts.connect + timeouts.handshake;
    let entry = POOL.with_borrow_mut(|pool| pool.entry(key));
    loop {
        let mut dialling = match entry.availability() {
            Availability::Ready(permit, tunnel) => return Ok((permit, tunnel)),
            Availability::Dialling(dialling) => dialling,
            Availability::NeedsDial => entry.begin_dial(state),
            Availability::Full => {
                let error = format!("there are {MAX_TUNNELS} tunnels to {}, and all are full", key.address);
                return Err(NotDialled::new(failed(error), "tls"));
            }
        };
        match timeout_at(deadline, dialling.wait_for(Option::is_some)).await {
            Ok(Ok(dialled)) => {
                if let Some(Err(error)) = &*dialled {
                    return Err(error.clone());
                }
            }
            Ok(Err(_gone)) => return Err(NotDialled::new(failed("the tunnel was not made".to_owned()), "tls")),
            Err(_elapsed) => return Err(NotDialled::new(Ending::new(Reason::HandshakeTimeout, None), "tls")),
        }
    }
}
