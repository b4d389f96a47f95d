//! The endpoints of all services. They outlive reloads, since they are found by names and addresses.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::pick::Candidate;
use super::state::EndpointState;

/// Locks, so that workers rarely meet at one.
const SHARDS: usize = 16;
/// Endpoints in each shard. One more is not remembered: its connections are made, and share nothing.
const MAX_ENDPOINTS: usize = 4096;

/// An endpoint, as the directory has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) address: SocketAddr,
    pub(crate) priority: u8,
    pub(crate) weight: u32,
}

/// All endpoints, by service, port and address.
pub(crate) struct EndpointStates {
    shards: [Mutex<Shard>; SHARDS],
    hash: RandomState,
}

#[derive(Default)]
struct Shard {
    services: HashMap<Arc<str>, HashMap<u16, Endpoints>>,
    count: usize,
}

/// The endpoints of one service port.
#[derive(Default)]
struct Endpoints {
    states: HashMap<SocketAddr, Arc<EndpointState>>,
    /// How often one was chosen.
    turn: u64,
}

impl Default for EndpointStates {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hash: RandomState::new() }
    }
}

impl EndpointStates {
    /// The endpoints of a service port, with what is known about each; and the number of this choice.
    pub(crate) fn candidates(
        &self,
        service: &Arc<str>,
        port: u16,
        specs: impl Iterator<Item = Spec>,
        now: Instant,
    ) -> (Vec<Candidate>, u64) {
        let mut shard = self.shard(service);
        let Shard { services, count } = &mut *shard;
        // A new name of the outer map is cheap: the directory keeps it anyway.
        let endpoints = services.entry(Arc::clone(service)).or_default().entry(port).or_default();
        let turn = endpoints.turn;
        endpoints.turn = turn.wrapping_add(1);
        let candidate = |spec: Spec| {
            let state = match endpoints.states.get(&spec.address) {
                Some(state) => Arc::clone(state),
                None => {
                    let state = Arc::new(EndpointState::new(now));
                    if *count < MAX_ENDPOINTS {
                        *count += 1;
                        endpoints.states.insert(spec.address, Arc::clone(&state));
                    }
                    state
                }
            };
            state.count_use(now);
            Candidate { address: spec.address, priority: spec.priority, weight: spec.weight, state }
        };
        (specs.map(candidate).collect(), turn)
    }

    /// Forgets what nobody has used for long. Returns how many endpoints are ejected now.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        let mut ejected = 0;
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut count = 0;
            shard.services.retain(|_, ports| {
                ports.retain(|_, endpoints| {
                    endpoints.states.retain(|_, state| !state.is_unused(now));
                    ejected += endpoints.states.values().filter(|state| state.is_ejected(now)).count();
                    count += endpoints.states.len();
                    !endpoints.states.is_empty()
                });
                !ports.is_empty()
            });
            shard.count = count;
        }
        ejected
    }

    fn shard(&self, service: &str) -> MutexGuard<'_, Shard> {
        let hash = self.hash.hash_one(service);
        let [first, ..] = &self.shards;
        let index = usize::try_from(hash).unwrap_or(0) % SHARDS;
        self.shards.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}
