//! Finds what is wrong in a set of policies, and what is valid but probably unintended.
//!
//! [`analyze`] is pure: the resources with their places, the set that the proxy makes of them, and the time come from the caller.

mod checks;
mod code;
mod finding;
mod input;
mod suppress;

pub use code::{Code, Level};
pub use finding::{Finding, Subject};
pub use input::{Input, Resource, Workload};
pub use suppress::Suppression;

/// Every finding, by file and line.
#[must_use]
pub fn analyze(input: &Input<'_>) -> Vec<Finding> {
    let mut findings = checks::all(input);
    findings.sort_by(|one, other| one.order().cmp(&other.order()));
    findings.dedup();
    findings
}
