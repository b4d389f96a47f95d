//! The answer to: where does this connection go, and how?

use std::sync::Arc;

use crate::directory::service::{Endpoint, Service, ServicePort};
use crate::directory::transport::Transport;

/// The result of a look-up.
#[derive(Clone, Debug)]
pub enum Lookup<'d> {
    /// A service has the destination.
    Found(Found<'d>),
    /// No service has it.
    Unknown,
    /// Services that disagree how it is reached have it: their labels. The connection must be refused.
    Conflict(Vec<String>),
    /// The host is known, and has no such subset.
    NoSubset,
    /// The host is known, and has no such port.
    NoPort,
}

impl Lookup<'_> {
    /// A stable word.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Found(_) => "found",
            Self::Unknown => "unknown",
            Self::Conflict(_) => "conflict",
            Self::NoSubset => "no_subset",
            Self::NoPort => "no_port",
        }
    }
}

/// A service port, and which of its endpoints may be dialled.
#[derive(Clone, Copy, Debug)]
pub struct Found<'d> {
    /// The service.
    pub service: &'d Arc<Service>,
    /// Its port.
    pub port: &'d Arc<ServicePort>,
    /// The endpoints.
    pub choice: Choice<'d>,
}

/// Which endpoints may be dialled.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'d> {
    /// Any of these: the caller balances. Empty if the service has no endpoint.
    Any(&'d [Arc<Endpoint>]),
    /// Exactly this one, since its own address was dialled.
    One(&'d Arc<Endpoint>),
    /// The destination itself, by resolution NONE.
    Original(&'d Transport),
}

impl<'d> Choice<'d> {
    /// The endpoints; none with resolution NONE.
    #[must_use]
    pub fn endpoints(&self) -> &'d [Arc<Endpoint>] {
        match self {
            Self::Any(endpoints) => endpoints,
            Self::One(endpoint) => std::slice::from_ref(endpoint),
            Self::Original(_) => &[],
        }
    }
}
