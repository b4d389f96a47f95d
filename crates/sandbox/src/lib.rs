//! What the running process gives up, so that whoever takes it over gains little.
//!
//! Nothing in here is the first line of defence, and nothing is ever given back.

pub mod access;
pub mod calls;
pub mod dumps;
