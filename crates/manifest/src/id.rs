//! What a resource is called.

use std::fmt;

use crate::kind::ResourceKind;

/// The name of a resource.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Id {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// As `kubectl apply` prints it.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{}", self.kind.singular(), self.kind.group(), self.name)
    }
}

impl Id {
    /// The file of a resource that has none yet: `NAMESPACE.KIND.NAME.yaml`. Neither namespace nor kind has a dot.
    pub(crate) fn file_name(&self) -> String {
        format!("{}.{}.{}.yaml", self.namespace, self.kind.singular(), self.name)
    }
}
