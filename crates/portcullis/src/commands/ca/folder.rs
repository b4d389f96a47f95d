//! The two kinds of folders with a CA: `ca init` makes one for a CA that runs, `certs init` one for certificates issued by
//! hand. They have files of the same names, so each command says which kind it was given.

use std::fs;
use std::path::Path;

use super::init::{REGISTRATIONS, TOKEN_KEY};
use super::{CA_CERT, ROOT_CERT};

/// Why `certs` does not use a folder that `ca init` has made; `None` if it is not such a folder.
pub(crate) fn made_by_ca_init(dir: &Path) -> Option<String> {
    let served = [REGISTRATIONS, TOKEN_KEY].iter().any(|name| dir.join(name).exists());
    served.then(|| {
        let dir = dir.display();
        format!(
            "{dir} is a folder of `portcullis ca init`, for a CA that runs: workloads get certificates from `portcullis ca run --dir {dir}`; to issue certificates by hand, make another folder with `portcullis certs init --out FOLDER`"
        )
    })
}

/// Why `ca` does not use a folder that `certs init` has made; `None` if it is not such a folder.
pub(super) fn made_by_certs_init(dir: &Path) -> Option<String> {
    if made_by_ca_init(dir).is_some() {
        return None;
    }
    // What signs there is the root itself.
    let (cert, root) = (fs::read(dir.join(CA_CERT)).ok()?, fs::read(dir.join(ROOT_CERT)).ok()?);
    (cert == root).then(|| {
        let dir = dir.display();
        format!(
            "{dir} is a folder of `portcullis certs init`, for certificates issued by hand with `portcullis certs issue --ca {dir}`; for a CA that runs, make another folder with `portcullis ca init --dir FOLDER`"
        )
    })
}
