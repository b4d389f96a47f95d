//! Where sidecars are.

use std::path::{Path, PathBuf};

use crate::address::{AddressError, AdminAddress, DEFAULT_PORT, DEFAULT_SOCKET, parse_port};

/// A place where sidecars are found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SidecarSource {
    /// One sidecar.
    Address(AdminAddress),
    /// A file of addresses.
    File(PathBuf),
    /// Every address of a name.
    Dns {
        /// The name.
        name: String,
        /// The admin port.
        port: u16,
    },
    /// A container engine.
    Engine {
        /// Its socket.
        socket: PathBuf,
        /// Only containers of this compose project.
        project: Option<String>,
    },
}

/// A sidecar to ask.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SidecarTarget {
    /// Its admin server.
    pub address: AdminAddress,
    /// What the source calls it, if the source has a name for it.
    pub name: Option<String>,
}

impl SidecarSource {
    /// What `--proxies` and `PORTCULLIS_PROXIES` take: `dns:NAME[:PORT]`, or a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let Some(name) = text.strip_prefix("dns:") else { return Ok(Self::File(text.into())) };
        let (name, port) = match name.rsplit_once(':') {
            Some((name, port)) => (name, parse_port(port)?),
            None => (name, DEFAULT_PORT),
        };
        if name.is_empty() {
            return Err(AddressError::Host(name.to_owned()));
        }
        Ok(Self::Dns { name: name.to_owned(), port })
    }
}

/// Where sidecars are if nothing says so: `listed` (`PORTCULLIS_PROXIES`), else the usual socket if there is one, else the usual port.
///
/// # Errors
/// What is wrong with `listed`.
pub fn defaults(listed: Option<&str>, has_socket: impl Fn(&Path) -> bool) -> Result<SidecarSource, AddressError> {
    let socket = Path::new(DEFAULT_SOCKET);
    match listed.filter(|listed| !listed.is_empty()) {
        Some(listed) => SidecarSource::parse(listed),
        None if has_socket(socket) => Ok(SidecarSource::Address(AdminAddress::Unix(socket.to_owned()))),
        None => Ok(SidecarSource::Address(AdminAddress::tcp("127.0.0.1", DEFAULT_PORT))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_proxies_is_a_file_or_a_name() {
        let dns = |name: &str, port| Ok(SidecarSource::Dns { name: name.to_owned(), port });
        assert_eq!(SidecarSource::parse("dns:mesh.test:1"), dns("mesh.test", 1));
        assert_eq!(SidecarSource::parse("dns:mesh.test"), dns("mesh.test", DEFAULT_PORT));
        assert_eq!(SidecarSource::parse("proxies.yaml"), Ok(SidecarSource::File("proxies.yaml".into())));
        assert!(
            SidecarSource::parse("dns::1").is_err()
                && SidecarSource::parse("dns:a:x").is_err()
                && SidecarSource::parse("").is_err()
        );
    }

    #[test]
    fn the_default_is_the_list_then_the_socket_then_the_port() {
        let socket = SidecarSource::Address(AdminAddress::Unix(DEFAULT_SOCKET.into()));
        assert_eq!(defaults(Some("p.yaml"), |_| true), Ok(SidecarSource::File("p.yaml".into())));
        assert_eq!(defaults(None, |path| path == Path::new(DEFAULT_SOCKET)), Ok(socket.clone()));
        assert_eq!(defaults(Some(""), |_| true), Ok(socket));
        assert_eq!(defaults(None, |_| false), Ok(SidecarSource::Address(AdminAddress::tcp("127.0.0.1", 15000))));
    }
}
