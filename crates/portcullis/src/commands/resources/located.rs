//! A resource, and where it is written.

use portcullis_manifest::{Object, ResourceKind};
use serde_json::Value;

/// A resource and its file.
pub(super) struct Located {
    pub(super) file: String,
    pub(super) object: Object,
}

impl Located {
    /// A field of the resource by its path.
    pub(super) fn field(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.object.value, |value, name| value.get(name))
    }

    pub(super) const fn kind(&self) -> ResourceKind {
        self.object.id.kind
    }
}
