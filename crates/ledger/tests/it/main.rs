//! The ledger through its public interface.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in test functions; here the helpers of the tests need them as well"
)]

mod cost;
mod files;
mod law;
mod limits;
mod readiness;
mod support;
