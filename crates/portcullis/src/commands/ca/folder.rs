//! The folder of a CA: its files, and the checks that commands make first.
//!
//! There are two kinds: `ca init` creates one for a CA that runs, `certs init` one for certificates issued by hand. They have
//! files of the same names, so each command reports which kind it was given.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use portcullis_ca::{Private, write};

use crate::exit::{Exit, Failure};
use crate::files::not_written;

/// The files of a CA, named as Istio names them, and its root, which `run` never reads.
pub(super) const CA_CERT: &str = "ca-cert.pem";
pub(super) const CA_KEY: &str = "ca-key.pem";
pub(super) const ROOT_CERT: &str = "root-cert.pem";
pub(super) const CHAIN: &str = "cert-chain.pem";
pub(super) const ROOT_FOLDER: &str = "root";
pub(super) const ROOT_KEY: &str = "root-key.pem";
pub(super) const REGISTRATIONS: &str = "identities.yaml";
pub(super) const TOKEN_KEY: &str = "token-key.pem";

/// The lifetime of an intermediate: a year. `ca renew` makes another one.
pub(super) const INTERMEDIATE_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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
fn made_by_certs_init(dir: &Path) -> Option<String> {
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

/// The failure of a request to the CA that should run on a folder.
pub(super) fn unanswered(dir: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| {
        let dir = dir.display();
        Failure::message(Exit::Unreachable, format!("no CA runs on {dir}, or it does not answer: {error}"))
    }
}

/// Refuses a folder that is for `portcullis certs`.
pub(super) fn refuse_certs_folder(dir: &Path, exit: Exit) -> Result<(), Failure> {
    made_by_certs_init(dir).map_or(Ok(()), |why| Err(Failure::message(exit, why)))
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    Ok(fs::read_to_string(path).with_context(|| path.display().to_string())?)
}

/// Puts an intermediate in place. The certificate comes after what it needs: without it nothing is a CA, and a running CA waits
/// for the pair.
pub(super) fn put(dir: &Path, intermediate: &portcullis_ca::Intermediate, roots: &str) -> Result<(), Failure> {
    let cert = intermediate.cert_pem();
    write(&dir.join(ROOT_CERT), roots.as_bytes(), Private::No, true).map_err(not_written)?;
    write(&dir.join(CHAIN), cert.as_bytes(), Private::No, true).map_err(not_written)?;
    portcullis_ca_server::replace_key_and_cert(dir, &intermediate.key_pem(), cert).map_err(not_written)
}
