//! Which files of a folder hold resources.

use std::path::Path;

/// The file name extensions that count. A JSON document is a YAML document, and `kubectl get -o json` writes such files.
pub const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Whether the file has one of the [`EXTENSIONS`].
pub(crate) fn is_resource_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
}
