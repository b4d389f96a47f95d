//! Which endpoint of a service is dialled: the closest locality first, without those that failed lately.
//!
//! Pure over the numbers it is given, but for the counters that all connections share ([`EndpointStates`]).

mod outlier;
mod pick;
mod state;
mod states;
#[cfg(test)]
mod tests;

pub(crate) use outlier::{OutlierSettings, failed};
pub(crate) use pick::{Candidate, pick};
pub(crate) use state::ActiveGuard;
pub(crate) use states::{EndpointStates, Spec};
