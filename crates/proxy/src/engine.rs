//! Listeners and workers: each worker is a thread with a single-threaded runtime and its own listening sockets on every
//! address, so a connection never changes threads and workers share no lock on its path.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portcullis_config::Settings;
use portcullis_net::accept::{AcceptError, Accepted, Acceptor, MAX_BACKOFF, MIN_BACKOFF};
use portcullis_net::admission::CountLimit;
use portcullis_net::listen::{ListenError, listen};
use portcullis_net::{Duplex, socket};
use portcullis_telemetry::{ConnRecord, Direction, Ending};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::beats::{BEAT, Beats};
use crate::drain::Phase;
use crate::outcome::Reason;
use crate::state::ProxyState;
use crate::{gateway, inbound, inbound_hbone, outbound};

/// After a forced drain, connections get this long to reset their endpoints and to write their access-log line.
const FORCED_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
enum Role {
    Inbound(inbound::InboundListener),
    Outbound(outbound::OutboundListener),
    /// HBONE tunnels.
    Hbone,
    /// By its index in `gateway.listeners`.
    Gateway(usize),
}

impl Role {
    const fn direction(self) -> Direction {
        match self {
            Self::Inbound(_) | Self::Hbone => Direction::Inbound,
            Self::Outbound(_) | Self::Gateway(_) => Direction::Outbound,
        }
    }
}

/// What a listener serves, and how many connections at once over all workers.
#[derive(Clone, Debug)]
struct ListenerSpec {
    role: Role,
    limit: CountLimit,
    /// Those of `inbound.ports`, for a listener that leads to all of them.
    ports: Arc<[CountLimit]>,
}

/// One listener of the configuration.
struct ConfiguredListener {
    /// Its field in the configuration.
    field: String,
    address: SocketAddr,
    spec: ListenerSpec,
}

/// Listening sockets, bound but not served yet.
pub struct Bound {
    workers: Vec<Vec<(ListenerSpec, TcpListener)>>,
}

/// Which listener cannot be bound, and why.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {source}")]
pub struct BindError {
    /// Its field in the configuration.
    pub field: String,
    /// Why the system refused.
    pub source: ListenError,
}

impl BindError {
    /// Whether a permission is missing, as for ports below 1024.
    #[must_use]
    pub const fn is_denied(&self) -> bool {
        matches!(self.source, ListenError::PermissionDenied { .. })
    }
}

/// The running data plane.
pub struct Engine {
    threads: Vec<JoinHandle<()>>,
    /// Signs of life of its workers.
    pub beats: Beats,
}

/// Binds every listener of the data plane, once for each worker.
///
/// # Errors
/// The first address that cannot be listened on.
pub fn bind(settings: &Settings, workers: NonZeroUsize) -> Result<Bound, BindError> {
    let mut bound: Vec<Vec<(ListenerSpec, TcpListener)>> = (0..workers.get()).map(|_| Vec::new()).collect();
    for ConfiguredListener { field, address, spec } in configured_listeners(settings) {
        let listeners = listen(address, workers).map_err(|source| BindError { field, source })?;
        for (worker, listener) in bound.iter_mut().zip(listeners) {
            worker.push((spec.clone(), listener));
        }
    }
    Ok(Bound { workers: bound })
}

fn configured_listeners(settings: &Settings) -> Vec<ConfiguredListener> {
    let listener = |role, limit, address, field: String| {
        let spec = ListenerSpec { role, limit: CountLimit::new(limit), ports: Arc::default() };
        ConfiguredListener { field, address, spec }
    };
    let (inbound, outbound) = (&settings.inbound, &settings.outbound);
    let mut listeners = Vec::new();
    for (index, port) in inbound.ports.iter().enumerate() {
        let role = Role::Inbound(inbound::InboundListener::Port(index));
        listeners.push(listener(role, port.limit, port.listen, format!("inbound.ports[{index}].listen")));
    }
    if let Some(address) = inbound.hbone {
        let ports = listeners.iter().map(|listener: &ConfiguredListener| listener.spec.limit.clone()).collect();
        let mut hbone = listener(Role::Hbone, None, address, "inbound.hbone".to_owned());
        hbone.spec.ports = ports;
        listeners.push(hbone);
    }
    if let Some(address) = inbound.transparent {
        let role = Role::Inbound(inbound::InboundListener::Captured);
        listeners.push(listener(role, inbound.transparent_limit, address, "inbound.transparent".to_owned()));
    }
    for (index, upstream) in outbound.upstreams.iter().enumerate() {
        let role = Role::Outbound(outbound::OutboundListener::Upstream(index));
        let field = format!("outbound.upstreams[{index}].listen");
        listeners.push(listener(role, upstream.limit, upstream.listen, field));
    }
    if let Some(address) = outbound.transparent {
        let role = Role::Outbound(outbound::OutboundListener::Captured);
        listeners.push(listener(role, outbound.transparent_limit, address, "outbound.transparent".to_owned()));
    }
    for (index, gateway) in settings.gateway.listeners.iter().enumerate() {
        let field = format!("gateway.listeners[{index}].listen");
        listeners.push(listener(Role::Gateway(index), gateway.limit, gateway.listen, field));
    }
    listeners
}

impl Bound {
    /// Starts serving.
    ///
    /// # Errors
    /// If a thread or a runtime cannot be started.
    pub fn start(self, state: &Arc<ProxyState>) -> io::Result<Engine> {
        let mut threads = Vec::new();
        let beats = Beats::new(self.workers.len());
        for (number, listeners) in self.workers.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (state, beats) = (Arc::clone(state), beats.clone());
            let work = move || runtime.block_on(worker(state, listeners, number, beats));
            threads.push(thread::Builder::new().name(format!("data-{number}")).spawn(work)?);
        }
        Ok(Engine { threads, beats })
    }
}

impl Engine {
    /// Waits until every worker has ended. They end when the drain is forced.
    pub fn join(self) {
        for thread in self.threads {
            // The panic of a worker was logged by the panic hook.
            let _panicked = thread.join();
        }
    }
}

async fn worker(state: Arc<ProxyState>, listeners: Vec<(ListenerSpec, TcpListener)>, number: usize, beats: Beats) {
    if number == 0 {
        let (names, expiries) = (Arc::clone(&state.destinations.names), Arc::clone(&state));
        let endpoints = Arc::clone(&state);
        tokio::spawn(async move { names.run().await });
        tokio::spawn(async move { endpoints.tend_endpoints().await });
        tokio::spawn(async move { expiries.watch_trust_expiries().await });
    }
    drop(tokio::spawn(async move {
        loop {
            sleep(BEAT).await;
            beats.beat(number);
            // Those that were not needed since the last time.
            portcullis_buffers::release_unused();
        }
    }));
    for (spec, listener) in listeners {
        if matches!(spec.role, Role::Outbound(_)) {
            // Its clients are apps of this host, whatever address it listens on.
            socket::disable_pacing(&listener);
        }
        match Acceptor::new(listener) {
            Ok(acceptor) => drop(tokio::spawn(serve_listener(Arc::clone(&state), acceptor, spec))),
            Err(error) => tracing::error!(%error, role = ?spec.role, "cannot serve a listener"),
        }
    }
    state.drain.reached(Phase::Forced).await;
    let _elapsed = tokio::time::timeout(FORCED_CLOSE_TIMEOUT, state.drain.empty()).await;
}

/// Runs the accept loop of one listener, and restarts it after a panic. The socket stays open meanwhile, so no client is
/// refused.
async fn serve_listener(state: Arc<ProxyState>, acceptor: Acceptor, spec: ListenerSpec) {
    let role = spec.role;
    let (metrics, acceptor) = (state.metrics.clone(), Arc::new(Mutex::new(acceptor)));
    let accept = || {
        let (state, acceptor, spec) = (Arc::clone(&state), Arc::clone(&acceptor), spec.clone());
        // Only this task takes the lock; it is released when the task ends or unwinds. A panic does not poison tokio's mutex.
        async move { accept_loop(state, &mut *acceptor.lock().await, &spec).await }
    };
    supervise(accept, |pause| {
        metrics.accept_errors.with(&["panic"]).add(1);
        tracing::error!(?role, ?pause, "a panic ended an accept loop; restarting it");
    })
    .await;
}

/// Restarts a task for as long as it panics, after a growing pause that is passed to `on_panic`.
async fn supervise<F>(mut task: impl FnMut() -> F, on_panic: impl Fn(Duration))
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pause = MIN_BACKOFF;
    loop {
        let began = Instant::now();
        // Spawned, since only the boundary of a task stops a panic.
        match tokio::spawn(task()).await {
            Err(error) if error.is_panic() => {}
            Ok(()) | Err(_) => return,
        }
        // A task that ran for a while starts over with the shortest pause.
        pause = if began.elapsed() > MAX_BACKOFF { MIN_BACKOFF } else { (pause * 2).min(MAX_BACKOFF) };
        on_panic(pause);
        sleep(pause).await;
    }
}

async fn accept_loop(state: Arc<ProxyState>, acceptor: &mut Acceptor, spec: &ListenerSpec) {
    let role = spec.role;
    let closing = match role {
        Role::Inbound(_) | Role::Hbone | Role::Gateway(_) => Phase::InboundClosed,
        Role::Outbound(_) => Phase::Forced,
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = state.drain.reached(closing) => return,
            accepted = acceptor.accept() => accepted,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                count_accept_error(&state, &error);
                continue;
            }
        };
        let Some(permit) = state.connections.acquire().await else {
            refuse(&state, &accepted, role, Reason::TooManyConnections);
            continue;
        };
        let guard = state.drain.enter();
        // Each future is spawned by itself: one that wraps both would be as large as the larger one.
        match role {
            Role::Inbound(listener) => {
                let admission =
                    inbound::InboundAdmission { guard, permit, listener, listener_limit: spec.limit.clone() };
                drop(tokio::spawn(inbound::serve(Arc::clone(&state), accepted, admission)));
            }
            Role::Hbone => {
                let admission = inbound_hbone::HboneAdmission { guard, permit, ports: Arc::clone(&spec.ports) };
                drop(tokio::spawn(inbound_hbone::serve(Arc::clone(&state), accepted, admission)));
            }
            Role::Gateway(listener) => {
                let admission =
                    gateway::GatewayAdmission { guard, permit, listener, listener_limit: spec.limit.clone() };
                drop(tokio::spawn(gateway::serve(Arc::clone(&state), accepted, admission)));
            }
            Role::Outbound(listener) => {
                // Before anything is read: only the app of this host can use up this limit.
                let Some(listener_permit) = spec.limit.try_acquire() else {
                    refuse(&state, &accepted, role, Reason::TooManyOnListener);
                    continue;
                };
                let admission = outbound::OutboundAdmission { guard, permit, listener, listener_permit };
                drop(tokio::spawn(outbound::serve(Arc::clone(&state), accepted, admission)));
            }
        }
    }
}

fn count_accept_error(state: &ProxyState, error: &AcceptError) {
    state.metrics.accept_errors.with(&[error.label()]).add(1);
    if let AcceptError::Exhausted { .. } = error {
        tracing::warn!(%error, "cannot accept connections");
    }
}

/// Resets a connection over a limit, and records it.
fn refuse(state: &ProxyState, accepted: &Accepted, role: Role, reason: Reason) {
    let record = ConnRecord::open(&state.metrics, role.direction(), accepted.client.get());
    let _closed = accepted.stream.reset_on_close();
    record.finish(&Ending::new(reason, None));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_does_not_end_an_accept_loop_and_does_not_spin() {
        let (runs, panics) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let listener = Arc::new(Mutex::new(()));
        let task = || {
            let (runs, listener) = (Arc::clone(&runs), Arc::clone(&listener));
            async move {
                let _held = listener.lock().await;
                assert!(runs.fetch_add(1, Ordering::Relaxed) == 20, "on purpose");
            }
        };
        let began = Instant::now();
        supervise(task, |pause| {
            panics.fetch_add(1, Ordering::Relaxed);
            assert!(pause <= MAX_BACKOFF);
        })
        .await;
        assert_eq!((runs.load(Ordering::Relaxed), panics.into_inner()), (21, 20));
        assert!(began.elapsed() > 10 * MAX_BACKOFF, "{:?}", began.elapsed());
    }

    /// Each open connection holds one, and each value that lives across an await makes it larger.
    #[test]
    fn the_future_of_a_connection_is_small() {
        fn size<A, B, C, F>(_serve: impl Fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        let stream = size(inbound_hbone::serve_stream);
        let sizes = [size(inbound::serve), size(outbound::serve), size(gateway::serve), stream];
        assert!(sizes.iter().all(|size| *size <= 1424), "{sizes:?}");
    }
}
