//! What this binary was built from.

/// The version of the package.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, with `-dirty` if files were changed; `unknown` where the build had no repository. The build script sets it.
pub(crate) const COMMIT: &str = env!("PORTCULLIS_COMMIT");
