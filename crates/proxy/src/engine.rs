//! Listeners and workers: one thread and one single-threaded runtime for each worker, each with its own listening
//! sockets on every address, so that a connection never changes threads and nothing is shared on its way.

use std::io;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portcullis_config::Settings;
use portcullis_net::accept::{AcceptError, Accepted, Acceptor, MAX_PAUSE, MIN_PAUSE};
use portcullis_net::listen::{ListenError, listen};
use portcullis_net::{Duplex, socket};
use portcullis_policy::Reason;
use portcullis_telemetry::{ConnRecord, Direction};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep};

use crate::drain::{ListenerPlace, Phase};
use crate::world::World;
use crate::{end, inbound, outbound};

/// After a forced drain the connections get this long to reset their ends and to write their last line.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
enum Role {
    Inbound(inbound::Target),
    Outbound(outbound::Target),
}

/// What a listener serves, and how many connections at once over all workers; `None` is as many as there may be in all.
#[derive(Clone, Debug)]
struct Duty {
    role: Role,
    places: Option<Arc<Semaphore>>,
}

impl Duty {
    fn new(role: Role, limit: Option<usize>) -> Self {
        Self { role, places: limit.map(|limit| Arc::new(Semaphore::new(limit))) }
    }
}

/// Listening sockets, bound but not served yet.
pub struct Bound {
    workers: Vec<Vec<(Duty, TcpListener)>>,
}

/// Which listener cannot be had, and why.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {source}")]
pub struct BindError {
    /// Its field in the configuration.
    pub field: String,
    /// What the system said.
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
}

/// Binds every listener of the data plane, for each worker.
///
/// # Errors
/// The first address that cannot be listened on.
pub fn bind(settings: &Settings, workers: NonZeroUsize) -> Result<Bound, BindError> {
    let mut all: Vec<Vec<(Duty, TcpListener)>> = (0..workers.get()).map(|_| Vec::new()).collect();
    let mut add = |role: Role, limit, address, field: String| {
        let duty = Duty::new(role, limit);
        let listeners = listen(address, workers).map_err(|source| BindError { field, source })?;
        for (worker, listener) in all.iter_mut().zip(listeners) {
            worker.push((duty.clone(), listener));
        }
        Ok(())
    };
    for (index, port) in settings.inbound.ports.iter().enumerate() {
        let field = format!("inbound.ports[{index}].listen");
        add(Role::Inbound(inbound::Target::Port(index)), port.limit, port.listen, field)?;
    }
    if let Some(address) = settings.inbound.transparent {
        let limit = settings.inbound.transparent_limit;
        add(Role::Inbound(inbound::Target::Captured), limit, address, "inbound.transparent".to_owned())?;
    }
    for (index, upstream) in settings.outbound.upstreams.iter().enumerate() {
        let field = format!("outbound.upstreams[{index}].listen");
        add(Role::Outbound(outbound::Target::Upstream(index)), upstream.limit, upstream.listen, field)?;
    }
    if let Some(address) = settings.outbound.transparent {
        let limit = settings.outbound.transparent_limit;
        add(Role::Outbound(outbound::Target::Captured), limit, address, "outbound.transparent".to_owned())?;
    }
    Ok(Bound { workers: all })
}

impl Bound {
    /// Starts serving.
    ///
    /// # Errors
    /// If a thread or a runtime cannot be started.
    pub fn start(self, world: &Arc<World>) -> io::Result<Engine> {
        let mut threads = Vec::new();
        for (number, listeners) in self.workers.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let world = Arc::clone(world);
            let work = move || runtime.block_on(worker(world, listeners, number));
            threads.push(thread::Builder::new().name(format!("data-{number}")).spawn(work)?);
        }
        Ok(Engine { threads })
    }
}

impl Engine {
    /// Waits until every worker has ended, which they do when the drain is forced.
    pub fn join(self) {
        for thread in self.threads {
            // A worker that panicked has nothing more to say than its panic message.
            let _panicked = thread.join();
        }
    }
}

async fn worker(world: Arc<World>, listeners: Vec<(Duty, TcpListener)>, number: usize) {
    if number == 0 {
        let (routes, expiries) = (Arc::clone(&world), Arc::clone(&world));
        tokio::spawn(async move { routes.routes.keep_resolved().await });
        tokio::spawn(async move { expiries.keep_expiring().await });
    }
    for (duty, listener) in listeners {
        if matches!(duty.role, Role::Outbound(_)) {
            // Whoever dials it is the app beside us, wherever it listens.
            socket::stays_on_host(&listener);
        }
        match Acceptor::new(listener, Arc::clone(&world.permits)) {
            Ok(acceptor) => drop(tokio::spawn(keep_accepting(Arc::clone(&world), acceptor, duty))),
            Err(error) => tracing::error!(%error, role = ?duty.role, "cannot serve a listener"),
        }
    }
    world.drain.reached(Phase::Forced).await;
    let _cut_off = tokio::time::timeout(LAST_WORDS, world.drain.empty()).await;
}

/// One listener, whose loop begins again where a mistake of ours ends it: the socket stays open meanwhile, so that nobody
/// is refused.
async fn keep_accepting(world: Arc<World>, acceptor: Acceptor, duty: Duty) {
    let role = duty.role;
    let (metrics, acceptor) = (world.metrics.clone(), Arc::new(Mutex::new(acceptor)));
    let accepting = || {
        let (world, acceptor, duty) = (Arc::clone(&world), Arc::clone(&acceptor), duty.clone());
        // Held by this one task until it ends or unwinds; a lock of tokio's is not poisoned by that.
        async move { accept_loop(world, &mut *acceptor.lock().await, &duty).await }
    };
    supervise(accepting, |pause| {
        metrics.accept_errors.with(&["panic"]).add(1);
        tracing::error!(?role, ?pause, "a panic ended an accept loop; it begins again");
    })
    .await;
}

/// Runs a task again for as long as it panics, with pauses that grow, and tells of each.
async fn supervise<F>(mut task: impl FnMut() -> F, panicked: impl Fn(Duration))
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pause = MIN_PAUSE;
    loop {
        let began = Instant::now();
        // A task of its own, since only its edge stops a panic.
        match tokio::spawn(task()).await {
            Err(error) if error.is_panic() => {}
            Ok(()) | Err(_) => return,
        }
        // After a while of peace the next panic is another story.
        pause = if began.elapsed() > MAX_PAUSE { MIN_PAUSE } else { (pause * 2).min(MAX_PAUSE) };
        panicked(pause);
        sleep(pause).await;
    }
}

async fn accept_loop(world: Arc<World>, acceptor: &mut Acceptor, duty: &Duty) {
    let role = duty.role;
    let closing = match role {
        Role::Inbound(_) => Phase::InboundClosed,
        Role::Outbound(_) => Phase::Forced,
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = world.drain.reached(closing) => return,
            accepted = acceptor.accept() => accepted,
        };
        let mut accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                world.metrics.accept_errors.with(&[error.label()]).add(1);
                if let AcceptError::Exhausted { .. } = error {
                    tracing::warn!(%error, "accept");
                }
                continue;
            }
        };
        if accepted.permit.is_none() {
            // One who has said nothing yet makes room for who comes, and needs a turn to go.
            world.handshakes.drop_silent();
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
                accepted.permit = Arc::clone(&world.permits).try_acquire_owned().ok();
                if accepted.permit.is_some() {
                    break;
                }
            }
        }
        if accepted.permit.is_none() {
            refuse(&world, &accepted, role, Reason::TooManyConnections);
            continue;
        }
        let live = world.drain.enter();
        // Each is spawned as it is, since a future around them would be as large as the larger one, and more.
        match role {
            Role::Inbound(target) => {
                let duty = (target, duty.places.clone());
                drop(tokio::spawn(inbound::serve(Arc::clone(&world), accepted, live, duty)));
            }
            Role::Outbound(target) => {
                // The app of this host is not silent for long: it is waited for by nobody but itself.
                let Some(listener) = ListenerPlace::take(duty.places.as_ref()) else {
                    refuse(&world, &accepted, role, Reason::TooManyOnListener);
                    continue;
                };
                drop(tokio::spawn(outbound::serve(Arc::clone(&world), accepted, (live, listener), target)));
            }
        }
    }
}

/// How long a connection over the cap waits for one that was dropped for it: turns of the other tasks.
const TURNS: usize = 3;

/// Over a limit: reset, and told why.
fn refuse(world: &World, accepted: &Accepted, role: Role, reason: Reason) {
    let direction = match role {
        Role::Inbound(_) => Direction::Inbound,
        Role::Outbound(_) => Direction::Outbound,
    };
    let record = ConnRecord::open(&world.metrics, direction, accepted.client.get());
    let _closed = accepted.stream.reset_on_close();
    record.finish(&end::because(reason, None));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_does_not_end_an_accept_loop_and_does_not_spin() {
        let (runs, told) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
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
            told.fetch_add(1, Ordering::Relaxed);
            assert!(pause <= MAX_PAUSE);
        })
        .await;
        assert_eq!((runs.load(Ordering::Relaxed), told.into_inner()), (21, 20));
        assert!(began.elapsed() > 10 * MAX_PAUSE, "{:?}", began.elapsed());
    }

    /// It is held as long as the connection lives, thousands of times; its parts add up unseen, each await at a time.
    #[test]
    fn the_future_of_a_connection_is_small() {
        fn size<A, B, C, D, F>(_serve: impl Fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let sizes = [size(inbound::serve), size(outbound::serve)];
        assert!(sizes.iter().all(|size| *size <= 1424), "{sizes:?}");
    }
}
