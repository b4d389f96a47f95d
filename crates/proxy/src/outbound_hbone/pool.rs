//! Tunnels that are kept, one pool for each worker thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_hbone::Reserved;
use portcullis_telemetry::Ending;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::dial::{NotDialled, Purpose, Tunnel, dial_tunnel, failed};
use crate::outcome::Reason;
use crate::state::ProxyState;

/// Tunnels that one worker has to one peer for one purpose, at most. Each has a hundred streams.
const MAX_TUNNELS: usize = 64;

thread_local! {
    /// A worker is a thread, and its tunnels are served by its tasks.
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool(HashMap<SocketAddr, Vec<Arc<Kept>>>);

/// The tunnels for one purpose.
struct Kept {
    purpose: Purpose,
    tunnels: Mutex<Tunnels>,
}

#[derive(Default)]
struct Tunnels {
    open: Vec<Tunnel>,
    /// The tunnel that is being made. All connections that want one wait for it, and fail with it.
    dialling: Option<Dialling>,
}

/// What came of a dial, once there is something.
type Dialling = watch::Receiver<Option<Result<(), NotDialled>>>;

/// Where a connection may go.
enum Place {
    Free(Reserved, Tunnel),
    Wait(Dialling),
    /// A tunnel has to be made.
    None,
    /// There are as many tunnels as there may be.
    Full,
}

impl Pool {
    fn kept(&mut self, purpose: &Purpose) -> Arc<Kept> {
        let all = self.0.entry(purpose.address).or_default();
        if let Some(found) = all.iter().find(|kept| kept.purpose.is_same(purpose)) {
            return Arc::clone(found);
        }
        let kept = Arc::new(Kept { purpose: purpose.clone(), tunnels: Mutex::default() });
        all.push(Arc::clone(&kept));
        // A new purpose is rare enough to look at the others.
        self.0.retain(|_, all| {
            all.retain(|kept| Arc::strong_count(kept) > 1 || kept.is_in_use());
            !all.is_empty()
        });
        kept
    }
}

impl Tunnels {
    fn dialling(&self) -> Option<&Dialling> {
        // A dial whose task is gone without a word has failed.
        self.dialling.as_ref().filter(|dialling| dialling.has_changed().is_ok())
    }
}

impl Kept {
    /// Its lock is never held across a wait.
    fn with<T>(&self, change: impl FnOnce(&mut Tunnels) -> T) -> T {
        change(&mut self.tunnels.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_in_use(&self) -> bool {
        self.with(|tunnels| tunnels.dialling().is_some() || tunnels.open.iter().any(|tunnel| tunnel.handle.is_open()))
    }

    fn place(&self) -> Place {
        self.with(|tunnels| {
            tunnels.open.retain(|tunnel| tunnel.handle.is_open());
            for tunnel in &tunnels.open {
                // Checked until one fits, and not for all: this runs for each connection.
                if self.purpose.credentials.still_trusts(&tunnel.facts.peer, &tunnel.path).is_err() {
                    tunnel.handle.close();
                } else if let Some(reserved) = tunnel.handle.reserve() {
                    return Place::Free(reserved, tunnel.clone());
                }
            }
            if let Some(dialling) = tunnels.dialling() {
                return Place::Wait(dialling.clone());
            }
            let open = tunnels.open.iter().filter(|tunnel| tunnel.handle.is_open()).count();
            if open >= MAX_TUNNELS { Place::Full } else { Place::None }
        })
    }

    /// Makes a tunnel in a task of its own: whoever asked for it first may be gone before the others.
    fn begin_dial(self: &Arc<Self>, state: &Arc<ProxyState>) -> Dialling {
        let (done, dialling) = watch::channel(None);
        self.with(|tunnels| tunnels.dialling = Some(dialling.clone()));
        let (kept, state) = (Arc::clone(self), Arc::clone(state));
        drop(tokio::spawn(async move {
            let dialled = dial_tunnel(&state, &kept.purpose).await;
            let dialled = kept.with(|tunnels| {
                tunnels.dialling = None;
                dialled.map(|tunnel| tunnels.open.push(tunnel))
            });
            let _nobody_waits = done.send(Some(dialled));
        }));
        dialling
    }
}

/// A place on a tunnel: one that is there and would be made anew now, or a new one. A burst makes one tunnel for as many connections as
/// it has streams, and waits for it together, each connection until its own deadline.
///
/// # Errors
/// Why there is none.
pub(super) async fn reserve(state: &Arc<ProxyState>, purpose: &Purpose) -> Result<(Reserved, Tunnel), NotDialled> {
    let timeouts = state.settings.timeouts;
    let deadline = Instant::now() + timeouts.connect + timeouts.handshake;
    let kept = POOL.with_borrow_mut(|pool| pool.kept(purpose));
    loop {
        let mut dialling = match kept.place() {
            Place::Free(reserved, tunnel) => return Ok((reserved, tunnel)),
            Place::Wait(dialling) => dialling,
            Place::None => kept.begin_dial(state),
            Place::Full => {
                let error = format!("there are {MAX_TUNNELS} tunnels to {}, and all are full", purpose.address);
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
