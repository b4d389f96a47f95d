//! Integration tests of this crate, one binary for all of them: each module is one subject.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

mod authorization_cases;
mod authorization_laws;
mod authorization_model;
mod break_glass;
mod cases;
mod diff_laws;
mod directory_cases;
mod directory_laws;
mod directory_model;
mod directory_view;
mod documents;
mod every_port;
mod explanation;
mod laws;
mod operator;
mod scale;
mod shadow_laws;
