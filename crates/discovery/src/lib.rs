//! Finds running sidecars, and asks them.
//!
//! [`SidecarSource`] says where sidecars are: an address, a file of addresses, a DNS name, or the socket of a container engine. [`find`]
//! turns it into [`SidecarTarget`]s, and [`ask`] asks all of them at once. The result has one [`Row`] for each sidecar, in the order of the
//! targets: its answer, or why there is none. A mesh in which one sidecar is down still has an answer.
//!
//! The answers are text that others wrote. They are parsed into the types of the caller, and nothing here prints them.

mod address;
mod ask;
mod docker;
mod find;
mod http;
mod proxies_file;
mod source;
mod stack;
mod unanswered;

pub use address::{AddressError, AdminAddress, DEFAULT_PORT, DEFAULT_SOCKET};
pub use ask::{Row, Sidecar, ask};
pub use docker::{ADMIN_PORT_LABEL, ContainerNames, DEFAULT_ENGINE, EngineError, SIDECAR_LABEL};
pub use find::{Discovered, SourceError, find};
pub use http::{Answer, Url};
pub use hyper::Method;
pub use source::{SidecarSource, SidecarTarget, defaults};
pub use stack::{StackContainer, stack, stacks};
pub use unanswered::Unanswered;
