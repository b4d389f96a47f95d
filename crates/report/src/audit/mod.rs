//! Which exceptions there are: whatever lets in, or sends, more than mTLS; who wanted them, why, until when, and what changed since a
//! baseline was saved.

mod baseline;
mod build;
mod model;
mod report;

pub use baseline::{Baseline, BaselineError};
pub use build::AuditInput;
pub use model::{Audit, AuditStatus, Change, Drift, DriftKind, Exception, Problem, Usage};
