//! Policies where nobody has a sidecar, as far as sidecars were asked.

use std::collections::BTreeSet;

use portcullis_manifest::ResourceKind;

use crate::code::Code;
use crate::finding::Finding;
use crate::input::Input;

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(sidecars) = input.sidecars else { return Vec::new() };
    let known: BTreeSet<&str> = sidecars.iter().map(|it| it.namespace.as_str()).collect();
    if known.is_empty() {
        return Vec::new();
    }
    let there = known.iter().copied().collect::<Vec<_>>().join(", ");
    let policies = [ResourceKind::PeerAuthentication, ResourceKind::AuthorizationPolicy]
        .into_iter()
        .flat_map(|kind| input.of(kind));
    let is_nowhere = |namespace: &str| !input.is_root(namespace) && !known.contains(namespace);
    policies
        .map(|policy| policy.subject())
        .filter(|subject| is_nowhere(&subject.namespace))
        .map(|subject| {
            let text = format!("no sidecar answers in namespace {}; there are: {there}", subject.namespace);
            Finding { code: Code::NoSidecar, subject, text }
        })
        .collect()
}
