//! The choice of one endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_policy::directory::LoadBalancer;
use tokio::time::Instant;

use super::state::EndpointState;

/// An endpoint that could be dialled.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) address: SocketAddr,
    /// 0 is the closest locality.
    pub(crate) priority: u8,
    /// Its share among endpoints of one priority; 0 counts as 1.
    pub(crate) weight: u32,
    /// What all connections to it share.
    pub(crate) state: Arc<EndpointState>,
}

impl Candidate {
    fn weight(&self) -> u64 {
        self.weight.max(1).into()
    }

    /// Whether it has fewer connections for its weight.
    fn is_less_busy_than(&self, other: &Self) -> bool {
        u64::from(self.state.active()) * other.weight() < u64::from(other.state.active()) * self.weight()
    }
}

/// The endpoint to dial, as its index: of the closest priority that has one that is neither ejected nor tried. If all that are left
/// are ejected, they count as if none were. `None` if all were tried. `turn` is the number of this choice, for
/// [`LoadBalancer::RoundRobin`].
pub(crate) fn pick(
    candidates: &[Candidate],
    tried: &[SocketAddr],
    policy: LoadBalancer,
    turn: u64,
    random: &mut fastrand::Rng,
    now: Instant,
) -> Option<usize> {
    let is_left = |candidate: &Candidate| !tried.contains(&candidate.address);
    let is_healthy = |candidate: &Candidate| is_left(candidate) && !candidate.state.is_ejected(now);
    let closest = |is_eligible: &dyn Fn(&Candidate) -> bool| {
        candidates.iter().filter(|candidate| is_eligible(candidate)).map(|candidate| candidate.priority).min()
    };
    if let Some(priority) = closest(&is_healthy) {
        let is_eligible = |candidate: &Candidate| candidate.priority == priority && is_healthy(candidate);
        return Pool { candidates, is_eligible: &is_eligible }.pick(policy, turn, random);
    }
    let priority = closest(&is_left)?;
    let is_eligible = |candidate: &Candidate| candidate.priority == priority && is_left(candidate);
    Pool { candidates, is_eligible: &is_eligible }.pick(policy, turn, random)
}

/// The endpoints among which the policy chooses.
struct Pool<'p> {
    candidates: &'p [Candidate],
    is_eligible: &'p dyn Fn(&Candidate) -> bool,
}

impl Pool<'_> {
    fn pick(&self, policy: LoadBalancer, turn: u64, random: &mut fastrand::Rng) -> Option<usize> {
        let total: u64 = self.eligible().map(|(_, candidate)| candidate.weight()).sum();
        match policy {
            LoadBalancer::Random => self.at(random.u64(..total.max(1)), None),
            LoadBalancer::RoundRobin => self.at(turn.checked_rem(total)?, None),
            LoadBalancer::LeastRequest => {
                let first = self.at(random.u64(..total.max(1)), None)?;
                let one = self.candidates.get(first)?;
                let rest = total.saturating_sub(one.weight());
                // A second one that is not the first.
                let second = (rest > 0).then(|| self.at(random.u64(..rest), Some(first))).flatten();
                let other = second.and_then(|second| Some((second, self.candidates.get(second)?)));
                Some(other.filter(|(_, other)| other.is_less_busy_than(one)).map_or(first, |(second, _)| second))
            }
        }
    }

    fn eligible(&self) -> impl Iterator<Item = (usize, &Candidate)> {
        self.candidates.iter().enumerate().filter(|(_, candidate)| (self.is_eligible)(candidate))
    }

    /// The endpoint at a point of all weights one behind the other.
    fn at(&self, mut point: u64, without: Option<usize>) -> Option<usize> {
        let mut last = None;
        for (index, candidate) in self.eligible().filter(|(index, _)| Some(*index) != without) {
            last = Some(index);
            match point.checked_sub(candidate.weight()) {
                Some(left) => point = left,
                None => break,
            }
        }
        // Behind the end only if an ejection ended between two passes.
        last
    }
}
