//! Reports from what sidecars observed: "who breaks if I switch to STRICT?" ([`readiness`]) and "what would these policies have
//! done?" ([`replay`]), is the mesh well ([`check`]), and which exceptions from mTLS are there ([`audit`])? While a change is watched: which refusals did it cause ([`guard`])? On the way
//! to STRICT: which namespace can be switched next ([`migrate`])?
//!
//! The observations of all sidecars are merged: replicas and restarts of one workload are one workload, and a client is one client
//! however many sidecars saw it. The result depends neither on the order of the answers nor on how observations are spread over them.
//!
//! Guarantees:
//!
//! - Doubt is never hidden. A sidecar that does not answer, a list that is not complete, too short an observation, a fact that is not
//!   recorded: each is in the report, and in its [`Status`].
//! - READY means that no connection without mTLS was let through in the window.
//! - Text that a stranger chose (names from DNS, server names) has no control characters, and is escaped for each format.
//!
//! Refuses: IO, and asking for the time. The caller brings answers, names and the time.

mod address_book;
pub mod audit;
pub mod check;
mod edges;
pub mod guard;
mod input;
mod merge;
pub mod migrate;
mod paste;
pub mod readiness;
mod render;
pub mod replay;
mod status;
mod text;
mod view;
mod window;

pub use address_book::AddressBook;
pub use edges::{Edge, Party, edges};
pub use input::{Answer, Names, NoSidecar, Unanswered, WorkloadName};
pub use paste::{Fix, Paste};
pub use render::{Form, RenderError, yaml_of_json};
pub use status::Status;
pub use text::{ago, length};
pub use window::Window;
