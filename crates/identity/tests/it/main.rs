//! Integration tests of this crate, one binary for all of them: each module is one subject.
mod certificates;
mod details;
