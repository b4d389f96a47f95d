//! What the tests of the wire stand on.

pub(crate) mod client;
pub(crate) mod stage;
