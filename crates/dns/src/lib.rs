//! Names and their addresses: a resolver that asks the DNS as the system is configured, and a set of names that is kept up
//! to date in the background.
//!
//! A [`Resolver`] answers one question at a time, and never from a cache: a caller that resolves again because an address is
//! unknown must not get the answer of a minute ago. [`Names`] decides when each name is asked again, and publishes what is
//! known as a [`Table`], which a connection reads without a lock.
//!
//! "There is no such name" is an answer. A lookup that failed is not: it takes no address away, and marks its name as failed,
//! so that the caller can fail closed. This crate decides nothing about connections.

mod error;
mod names;
mod resolver;
mod table;

pub use error::{DnsError, LookupError};
pub use names::{MIN_ROUND_INTERVAL, Names};
pub use resolver::{Answer, LOOKUP_TIMEOUT, Lookup, LookupFuture, Resolver};
pub use table::Table;
