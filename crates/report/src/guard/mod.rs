//! Which refusals a change of policies caused, while it is watched.
//!
//! A refused connection counts if the policies from before the change would have let it through. It is decided by those policies, with labels
//! and settings of the sidecar that refused it, as [`replay`](crate::replay) decides. Doubt counts: whatever cannot be ruled out as an effect
//! of the change is one.
//!
//! What does not count: a connection that the former policies refuse too; one that no policy decides, such as a limit or an app that is down
//! ([`NOT_BY_POLICY`]); and, where the former policies do not decide it alone, what was refused in the same way before the change.

mod baseline;
mod denied;

/// The file in a policy folder that says that a guarded change is open.
pub const RECOVERY_FILE: &str = ".portcullis-guard.json";

pub use baseline::{Baseline, NOT_BY_POLICY};
pub use denied::{Denied, denied};
