//! Support for the wire tests.

pub(crate) mod client;
pub(crate) mod stage;
