//! Resources in the files of a policy folder: which document of which file each one is, and what the files become when some are
//! applied or deleted.
//!
//! Pure: text in, text out. Whether a resource is valid is not decided here. A document of YAML begins at the start of the text or
//! after `---`; no line of a document can begin with that, so documents are told apart without understanding them.

mod document;
mod edit;
mod id;
mod kind;
mod plan;
mod unified;
mod value;

pub use document::{Object, Place, read};
pub use id::Id;
pub use kind::ResourceKind;
pub use plan::{Action, Effect, FileChange, Plan, PlanError, Prune, TextFile, apply, delete};
pub use unified::unified;
pub use value::{to_json, to_yaml};
