//! The attempts, one after the other.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_identity::leaf::{self, Role};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;

use crate::attempt::Attempt;
use crate::certificates::{CaKey, CertificateError, Forge, Identity, RELAXED, random};
use crate::connection::{ConnectError, Connection, Target};
use crate::hello;
use crate::observation::{End, Observation, Stage};
use crate::plaintext;
use crate::tls::{self, Alpn, Early};

/// What one attempt showed.
#[derive(Clone, Debug)]
pub enum Probe {
    /// A connection.
    Tried(Box<Observation>),
    /// It could not be tried.
    Skipped(Skipped),
}

/// Why an attempt was not made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Skipped {
    /// There are no credentials.
    #[error("there are no credentials to try it with")]
    NoCredentials,
    /// There was no first session to continue.
    #[error("no session could be begun that it could continue")]
    NoSession,
    /// Its certificate could not be made.
    #[error("{0}")]
    Certificate(String),
}

/// What attempts are made with.
#[derive(Debug)]
pub struct Prober<'a> {
    /// Where to.
    pub target: Target,
    /// The credentials that are to be let in.
    pub identity: Option<Identity>,
    /// The key of the server's CA, to make certificates with one fault only.
    pub ca: Option<CaKey>,
    /// The trust domain of the attempts' identities where the server shows none.
    pub domain: &'a str,
    /// The time, in Unix time.
    pub now_unix: i64,
}

impl Prober<'_> {
    /// Makes all attempts, and tells `seen` of each.
    ///
    /// # Errors
    /// If the target cannot be reached at all.
    pub fn run(&self, attempts: &[Attempt], mut seen: impl FnMut(Attempt, Probe)) -> Result<(), ConnectError> {
        let addresses = self.target.addresses()?;
        // Whether it can be reached is not to be read from the failure of an attempt.
        drop(self.target.connect(&addresses)?);
        let mut run = Run { prober: self, addresses, server: None };
        for attempt in attempts {
            let probe = run.attempt(*attempt);
            if let Probe::Tried(seen) = &probe
                && let Some(leaf) = seen.presented.first()
                && run.server.is_none()
            {
                run.server = Some(leaf.clone());
            }
            seen(*attempt, probe);
        }
        Ok(())
    }

    fn request(&self) -> Vec<u8> {
        let Target { host, port, .. } = &self.target;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!(
            "GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: portcullis-verify\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        .into_bytes()
    }
}

/// The certificates that a server presents: to the mesh, or if it shows none, to a client that does not announce the mesh. The handshake
/// need not succeed.
///
/// # Errors
/// If it cannot be reached.
pub fn presented(target: &Target) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let prober = Prober { target: target.clone(), identity: None, ca: None, domain: "cluster.local", now_unix: 0 };
    let mut chain = Vec::new();
    for attempt in [Attempt::NoCertificate, Attempt::NoAlpn] {
        prober.run(&[attempt], |_, probe| {
            if let Probe::Tried(seen) = probe {
                chain = seen.presented;
            }
        })?;
        if !chain.is_empty() {
            break;
        }
    }
    Ok(chain)
}

struct Run<'a> {
    prober: &'a Prober<'a>,
    addresses: Vec<SocketAddr>,
    /// The server's own certificate, once it has shown one.
    server: Option<CertificateDer<'static>>,
}

impl Run<'_> {
    fn attempt(&self, attempt: Attempt) -> Probe {
        let request = self.prober.request();
        let identity = self.prober.identity.as_ref().map(|identity| &identity.key);
        let made = |made: Result<CertifiedKey, CertificateError>| match made {
            Ok(key) => self.tls(Some(&Arc::new(key)), Alpn::Mesh),
            Err(error) => Probe::Skipped(Skipped::Certificate(error.to_string())),
        };
        match attempt {
            Attempt::RightIdentity => match identity {
                Some(key) => self.tls(Some(key), Alpn::Mesh),
                None => Probe::Skipped(Skipped::NoCredentials),
            },
            Attempt::Plaintext => self.tried(|connection| plaintext::request(connection, &request)),
            Attempt::Silence => self.tried(plaintext::silence),
            Attempt::NoCertificate => self.tls(None, Alpn::Mesh),
            Attempt::WrongCa => made(self.forge().wrong_ca(&self.domain())),
            Attempt::Expired => {
                let own = self.prober.identity.as_ref().map(|identity| identity.id.to_string());
                let id = own.unwrap_or_else(|| Forge::outsider(&self.domain()));
                made(self.forge().expired(&id, self.server.as_deref()))
            }
            Attempt::WrongIdentity => made(self.forge().wrong_identity(self.server.as_deref())),
            Attempt::Tls12 => self.old(hello::TLS12),
            Attempt::Tls11 => self.old(hello::TLS11),
            Attempt::Tls10 => self.old(hello::TLS10),
            Attempt::NoAlpn => self.tls(identity, Alpn::None),
            Attempt::Resumption => self.twice(identity, Early::No),
            Attempt::EarlyData => self.twice(identity, Early::Try),
        }
    }

    fn forge(&self) -> Forge<'_> {
        // A clock beyond the year 9999 is as wrong as one at the beginning.
        let now = OffsetDateTime::from_unix_timestamp(self.prober.now_unix).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Forge { now, ca: self.prober.ca.as_ref() }
    }

    /// The trust domain that the server belongs to.
    fn domain(&self) -> String {
        let own = self.prober.identity.as_ref().map(|identity| identity.id.trust_domain().to_string());
        let shown = || {
            let leaf = leaf::check(self.server.as_deref()?, RELAXED, Role::Server).ok()?;
            Some(leaf.id.trust_domain().to_string())
        };
        own.or_else(shown).unwrap_or_else(|| self.prober.domain.to_owned())
    }

    fn tried(&self, exchange: impl FnOnce(&mut Connection) -> Observation) -> Probe {
        Probe::Tried(Box::new(match self.prober.target.connect(&self.addresses) {
            Ok(mut connection) => exchange(&mut connection),
            Err(error) => Observation::ended(Stage::Opening, End::NotConnected(error.to_string())),
        }))
    }

    fn old(&self, version: u16) -> Probe {
        match random() {
            Ok(random) => self.tried(|connection| hello::old(connection, version, self.dns_name(), random)),
            Err(error) => Probe::Skipped(Skipped::Certificate(error.to_string())),
        }
    }

    fn tls(&self, identity: Option<&Arc<CertifiedKey>>, alpn: Alpn) -> Probe {
        match tls::client(identity, alpn) {
            Ok(config) => self.tls_with(&Arc::new(config), Early::No),
            Err(error) => Probe::Skipped(Skipped::Certificate(error.to_string())),
        }
    }

    fn tls_with(&self, config: &Arc<rustls::ClientConfig>, early: Early) -> Probe {
        let request = self.prober.request();
        self.tried(|connection| tls::exchange(connection, config, self.server_name(), &request, early))
    }

    /// A first connection, which may leave a session, and a second one.
    fn twice(&self, identity: Option<&Arc<CertifiedKey>>, early: Early) -> Probe {
        let config = match tls::client(identity, Alpn::Mesh) {
            Ok(config) => Arc::new(config),
            Err(error) => return Probe::Skipped(Skipped::Certificate(error.to_string())),
        };
        match self.tls_with(&config, Early::No) {
            Probe::Tried(first) if first.handshake.is_some() && !matches!(first.end, End::Alert(_)) => {
                self.tls_with(&config, early)
            }
            Probe::Tried(_) => Probe::Skipped(Skipped::NoSession),
            skipped @ Probe::Skipped(_) => skipped,
        }
    }

    fn dns_name(&self) -> Option<&str> {
        let host = self.prober.target.host.as_str();
        matches!(ServerName::try_from(host), Ok(ServerName::DnsName(_))).then_some(host)
    }

    fn server_name(&self) -> ServerName<'static> {
        let first = self.addresses.first().map(|address| ServerName::from(address.ip()));
        let named = ServerName::try_from(self.prober.target.host.clone()).ok();
        // There is an address, or there would be no run.
        named.or(first).unwrap_or_else(|| ServerName::from(std::net::IpAddr::from([127, 0, 0, 1])))
    }
}
