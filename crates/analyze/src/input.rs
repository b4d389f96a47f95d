//! What is analysed.

use std::collections::BTreeMap;

use portcullis_manifest::{Object, ResourceKind};
use portcullis_policy::{Diagnostic, MeshSettings, PolicySet};
use serde_json::Value;

use crate::finding::Subject;

/// A resource and its file.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The file.
    pub file: String,
    /// The resource.
    pub object: Object,
}

/// A workload that has a sidecar.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What is analysed.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Every resource.
    pub resources: &'a [Resource],
    /// What the proxy makes of them.
    pub set: &'a PolicySet,
    /// Why the proxy refuses the set.
    pub errors: &'a [Diagnostic],
    /// What it warns of.
    pub warnings: &'a [Diagnostic],
    /// Files of the folder that are not read.
    pub ignored_files: &'a [String],
    /// Workloads whose sidecars answer; none if none was asked.
    pub sidecars: Option<&'a [Workload]>,
    /// Settings of the mesh.
    pub mesh: &'a MeshSettings,
    /// Clients decide by themselves whether to speak mTLS.
    pub auto_mtls: bool,
    /// The time, in Unix time.
    pub now_unix: i64,
}

impl Resource {
    /// What findings about it name.
    pub(crate) fn subject(&self) -> Subject {
        let id = &self.object.id;
        Subject {
            kind: Some(id.kind.name().to_owned()),
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            file: self.file.clone(),
            line: self.object.line,
        }
    }

    pub(crate) fn field(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.object.value, |value, name| value.get(name))
    }

    pub(crate) fn text(&self, path: &[&str]) -> Option<&str> {
        self.field(path).and_then(Value::as_str)
    }
}

impl<'a> Input<'a> {
    pub(crate) fn of(&self, kind: ResourceKind) -> impl Iterator<Item = &'a Resource> {
        self.resources.iter().filter(move |resource| resource.object.id.kind == kind)
    }

    /// The resource that a diagnostic is about: the last one that begins before it.
    pub(crate) fn at(&self, file: &str, line: u32) -> Option<&'a Resource> {
        let before = |resource: &&Resource| resource.file == file && resource.object.line <= line;
        self.resources.iter().filter(before).max_by_key(|resource| resource.object.line)
    }

    /// Namespace-wide, or mesh-wide in the root namespace: without a selector.
    pub(crate) fn is_root(&self, namespace: &str) -> bool {
        self.mesh.root_namespace == namespace
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn resources_have_the_kinds_that_policies_are_read_from() {
        let named: BTreeSet<_> = ResourceKind::ALL.iter().map(|kind| (kind.group(), kind.name())).collect();
        let read: BTreeSet<_> = portcullis_policy::resource_kinds().collect();
        assert_eq!(named, read);
    }
}
