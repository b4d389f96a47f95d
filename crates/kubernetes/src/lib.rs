//! Policies and the service directory from a Kubernetes API server: the kinds that files have, of the own and the root namespace.
//!
//! A [`Source`] lists and watches, and passes every new set of objects, whole, to a loader. Each object becomes a JSON document that the
//! reader of files reads; `metadata.creationTimestamp` is its age.
//!
//! Guarantees:
//! - Nothing is offered before every kind was listed: what is missing could be what forbids.
//! - An object that cannot be read leaves its last good version in force, and is a [`Problem`]. A set that the loader refuses changes
//!   nothing.
//! - While the server is away, refuses, or does not know a kind any more, what was known stays in force, and there is a [`Problem`] with its age.
//! - After each failure and each new connection everything is listed again, so that a server that went back in time is noticed.
//! - One HTTP/2 connection for all watches, every wait with a deadline, delays with jitter and a cap, sizes with limits.
//! - The copy on disk holds only what was in force. While the server does not answer it is taken whole or not at all; of a server that lacks
//!   a kind at the start, the objects of that kind are.
//!
//! It refuses to write anything to the cluster: `list` and `watch` are all that it asks for.

mod collector;
mod connection;
mod copy;
mod failure;
mod object;
mod objects;
mod source;
mod status;
mod watch;

pub use failure::FailureReason;
pub use source::{Source, SourceError, SourceParts};
pub use status::{Monitor, Problem, Status, WatchState, WatchStatus};
