//! The checks, by subject.

mod destination_rules;
mod diagnostics;
mod exceptions;
mod peer_authentications;
mod sidecars;

use crate::finding::Finding;
use crate::input::Input;

pub(crate) fn all(input: &Input<'_>) -> Vec<Finding> {
    let mut findings = diagnostics::check(input);
    findings.extend(peer_authentications::check(input));
    findings.extend(sidecars::check(input));
    findings.extend(destination_rules::check(input));
    findings.extend(exceptions::check(input));
    findings
}
