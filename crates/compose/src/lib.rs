//! Adds sidecars to the services of a compose file: text in, text out.
//!
//! [`ComposeFile::parse`] reads a file, [`ComposeFile::add_sidecars`] returns the [`Plan`], and the plan prints either the whole
//! file or an override file. The app keeps its name and everything that does not concern its network. Its network namespace
//! moves to a service of its own (`NAME-net`), so that the redirect rules exist before the app starts and survive its
//! replacement. One CA issues the certificates of all sidecars: of this file, or one that is there already. Sidecars and a CA that the file already has are extended.
//!
//! Guaranteed: the result is the same for the same input, and a file with any problem changes nothing: [`Error::Refused`] lists
//! every problem that was found. Refused: services that cannot have a sidecar, such as one with a network mode of its own, more
//! than one replica, or the sidecar's user ID.
//!
//! This crate does no IO: the caller reads the file and writes the result.

mod add;
mod ca;
mod checks;
mod compact;
mod env_file;
mod error;
mod existing;
mod file;
mod names;
mod plan;
mod proxy_config;
mod record;
mod render;
mod request;
mod service;
mod settings;
mod sidecar;
mod spec;
mod state;
mod yaml;

pub use env_file::{compose_file, with_compose_file, without_compose_file};
pub use error::{Error, ExistingProblem, Problem, Reason};
pub use file::ComposeFile;
pub use plan::Plan;
pub use record::Record;
pub use request::{JoinedCa, Request};
pub use state::{Container, ServiceState, sidecar_services};
