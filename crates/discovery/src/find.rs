//! Looks sources up: the targets that they have.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use crate::docker::{self, ContainerNames, EngineError};
use crate::proxies_file;
use crate::source::{SidecarSource, SidecarTarget};

/// What the sources have.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// Each sidecar once, in the order of the sources.
    pub targets: Vec<SidecarTarget>,
    /// Names of containers, if an engine was asked.
    pub containers: ContainerNames,
    /// Containers on the networks of sidecars that have none, by name; none if no engine was asked.
    pub without_sidecar: Option<Vec<String>>,
}

/// Why a source has no targets.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Lines of a file are wrong; one line of text for each.
    #[error("{0}")]
    Lines(String),
    /// The name has no address.
    #[error("dns:{name}: the name has no address: {problem}")]
    Dns {
        /// The name.
        name: String,
        /// Why.
        problem: String,
    },
    /// The engine does not answer.
    #[error("{}: {error}", socket.display())]
    Engine {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        error: EngineError,
    },
    /// The sources have no sidecar.
    #[error("{0}")]
    Empty(String),
}

/// Looks the sources up, each within the deadline.
///
/// # Errors
/// If a source cannot be read, or there is no sidecar in any: an answer about a part of the mesh would look like one about all of it.
pub async fn find(sources: &[SidecarSource], within: Duration) -> Result<Discovered, SourceError> {
    let (mut found, mut known) = (Discovered::default(), HashSet::new());
    for source in sources {
        for target in targets_of(source, within, &mut found).await? {
            if known.insert(target.address.clone()) {
                found.targets.push(target);
            }
        }
    }
    Ok(found)
}

async fn targets_of(
    source: &SidecarSource,
    within: Duration,
    found: &mut Discovered,
) -> Result<Vec<SidecarTarget>, SourceError> {
    match source {
        SidecarSource::Address(address) => Ok(vec![SidecarTarget { address: address.clone(), name: None }]),
        SidecarSource::Dns { name, port } => look_up(name, *port, within).await,
        SidecarSource::File(path) => {
            let text = read_file(path)?;
            let entries = proxies_file::parse(&path.display().to_string(), &text).map_err(SourceError::Lines)?;
            let mut targets = Vec::new();
            for entry in entries {
                match entry {
                    proxies_file::Entry::Address(address) => targets.push(SidecarTarget { address, name: None }),
                    proxies_file::Entry::Dns { name, port } => targets.extend(look_up(&name, port, within).await?),
                }
            }
            if targets.is_empty() {
                let message = format!("{}: no proxy is listed; write an address on each line", path.display());
                return Err(SourceError::Empty(message));
            }
            Ok(targets)
        }
        SidecarSource::Engine { socket, project } => {
            let list = docker::list(socket, within).await;
            let list = list.map_err(|error| SourceError::Engine { socket: socket.clone(), error })?;
            let targets = list.sidecars(project.as_deref());
            if targets.is_empty() {
                return Err(SourceError::Empty(list.no_sidecar(socket)));
            }
            found.containers.add(&list);
            found.without_sidecar.get_or_insert_default().extend(list.without_sidecar(project.as_deref()));
            Ok(targets)
        }
    }
}

fn read_file(path: &Path) -> Result<String, SourceError> {
    // A list of addresses; no mesh needs more.
    const MAX_FILE: u64 = 1024 * 1024;
    let failed = |error| SourceError::File { path: path.to_owned(), error };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        let message = format!("it has {length} bytes, and a list of proxies at most {MAX_FILE}");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Every address of a name, in order, so that two runs list the same.
async fn look_up(name: &str, port: u16, within: Duration) -> Result<Vec<SidecarTarget>, SourceError> {
    let failed = |problem: String| SourceError::Dns { name: name.to_owned(), problem };
    let answer = timeout(within, tokio::net::lookup_host((name, port))).await;
    let answer = answer.map_err(|_| failed(format!("no answer within {} s", within.as_secs_f64())))?;
    let mut addresses: Vec<_> = answer.map_err(|error| failed(error.to_string()))?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses.into_iter().map(|address| SidecarTarget { address: address.into(), name: None }).collect())
}
