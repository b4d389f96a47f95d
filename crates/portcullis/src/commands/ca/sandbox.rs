//! The sandbox of `ca run`: write access to its folder and the token folder, its ports, and read access to linked files.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_reload::FileSet;
use portcullis_sandbox::access::Access;

use crate::sandbox::{PROC, is_deep};

/// For a CA on `dir`. The folder of the tokens is made if it is not there, since a rule needs it.
pub(super) fn access(dir: &Path, bootstrap: Option<&Path>, listen: [Option<SocketAddr>; 2]) -> anyhow::Result<Access> {
    if let Some(folder) = bootstrap {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("--bootstrap {}", folder.display()))?;
    }
    let mut read = BTreeSet::from([PathBuf::from(PROC)]);
    for paths in portcullis_ca_server::reads(dir).iter().map(FileSet::read_paths) {
        read.extend(paths.within);
        read.extend(paths.around.into_iter().filter(|folder| is_deep(folder)));
    }
    Ok(Access {
        read,
        write: [Some(dir), bootstrap].into_iter().flatten().map(Path::to_owned).collect(),
        bind: listen.into_iter().flatten().map(|address| address.port()).collect(),
        // It never opens connections.
        connect: Some(BTreeSet::new()),
        ..Access::default()
    })
}
