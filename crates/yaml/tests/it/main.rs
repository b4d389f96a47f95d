//! Integration tests of this crate, one binary for all of them: each module is one subject.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod reader;
mod total;
