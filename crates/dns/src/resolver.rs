//! One lookup: literal addresses, then the hosts file, then the DNS with its search domains.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{DnsError, LookupError};
pub use answer::Answer;
use query::Reply;
use settings::Settings;
use system::System;

mod answer;
mod query;
mod reverse;
mod settings;
mod system;
#[cfg(test)]
mod tests;

/// The deadline of one lookup, over all servers and search domains.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How much earlier the questions end: a caller whose deadline began a moment before gets the answer about one family though the
/// other is still awaited.
const MARGIN: Duration = Duration::from_millis(100);
/// How long a server that did not answer is asked after the others.
const SERVER_PENALTY: Duration = Duration::from_secs(30);

/// Looks names up. [`Resolver`] asks the DNS; tests answer themselves.
pub trait Lookup: Send + Sync + 'static {
    /// Addresses of the name, from a question that is asked after this call. Takes [`LOOKUP_TIMEOUT`] at most.
    ///
    /// # Errors
    /// If nobody answered, or the answer is an error. That the name does not exist is an answer.
    fn lookup<'a>(&'a self, name: &'a str) -> LookupFuture<'a>;
}

/// The result of [`Lookup::lookup`].
pub type LookupFuture<'a> = Pin<Box<dyn Future<Output = Result<Answer, LookupError>> + Send + 'a>>;

/// A resolver without a cache. Cheap to clone; each lookup runs on the runtime of its caller and shares nothing with others, so
/// a busy thread delays no lookup of another.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    source: Source,
    /// Servers that did not answer, and until when they are asked last.
    penalties: Mutex<HashMap<SocketAddr, Instant>>,
}

enum Source {
    System(System),
    Fixed(Arc<Settings>),
}

impl Resolver {
    /// A resolver with the system's servers, search domains, `ndots`, and hosts file. The files are read again when they
    /// change. Without `/etc/resolv.conf` the server is the one of this host, as for glibc.
    ///
    /// # Errors
    /// If a file is there, and cannot be read.
    pub fn system() -> Result<Self, DnsError> {
        Ok(Self::new(Source::System(System::read()?)))
    }

    /// A resolver with these servers, in the order in which they are asked, and search domains. It knows no hosts file, and a
    /// name with a dot is tried as it is first.
    #[must_use]
    pub fn with_servers(servers: &[SocketAddr], search: &[String]) -> Self {
        let settings = Settings { servers: servers.to_vec(), search: search.to_vec(), ..Settings::default() };
        Self::new(Source::Fixed(Arc::new(settings)))
    }

    fn new(source: Source) -> Self {
        Self(Arc::new(Inner { source, penalties: Mutex::default() }))
    }

    /// Looks the name up. A trailing dot keeps it from the search domains.
    ///
    /// # Errors
    /// See [`Lookup::lookup`].
    pub async fn lookup(&self, name: &str) -> Result<Answer, LookupError> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(Answer::local(vec![address]));
        }
        let settings = self.settings();
        if let Some(addresses) = settings.host(name) {
            return Ok(Answer::local(addresses.to_vec()));
        }
        self.search(&settings, name, Instant::now() + (LOOKUP_TIMEOUT - MARGIN)).await
    }

    fn settings(&self) -> Arc<Settings> {
        match &self.0.source {
            Source::System(system) => system.settings(),
            Source::Fixed(settings) => Arc::clone(settings),
        }
    }

    /// Asks for the name in each search domain until there is an address. As with glibc, an error of a server about one of
    /// them does not end the search, but then no answer is final.
    async fn search(&self, settings: &Settings, name: &str, deadline: Instant) -> Result<Answer, LookupError> {
        let mut failed = None;
        let mut none = Answer { addresses: Vec::new(), valid_for: Duration::MAX, incomplete: None };
        for candidate in settings.candidates(name)? {
            let answer = match self.ask(settings, &candidate, deadline).await {
                Ok(reply) => reply.into_answer(),
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) if answer.addresses.is_empty() => none.valid_for = none.valid_for.min(answer.valid_for),
                Ok(answer) => return Ok(answer),
                Err(error @ LookupError::Refused { .. }) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(none), Err)
    }

    /// Asks one server after the other. The order counts: later ones may know less than the first, so they are asked only if
    /// those before them cannot answer.
    async fn ask(
        &self,
        settings: &Settings,
        name: &hickory_resolver::proto::rr::Name,
        deadline: Instant,
    ) -> Result<Reply, LookupError> {
        let servers = self.in_order(&settings.servers);
        let mut best: Option<Reply> = None;
        for (index, server) in servers.iter().enumerate() {
            // Each server gets its share of the time that is left, the last one all of it.
            let left = u32::try_from(servers.len().saturating_sub(index)).unwrap_or(u32::MAX).max(1);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            let reply = query::ask(*server, settings, name, share).await;
            let silent = reply.is_silent();
            self.penalise(*server, silent);
            if reply.is_complete() {
                return Ok(reply);
            }
            best = Some(match best {
                Some(best) => best.better(reply),
                None => reply,
            });
            if Instant::now() >= deadline {
                break;
            }
        }
        match best {
            Some(reply) if reply.is_silent() && Instant::now() >= deadline => Err(LookupError::Timeout(LOOKUP_TIMEOUT)),
            Some(reply) => Ok(reply),
            None => Err(LookupError::NoServer),
        }
    }

    /// The servers, those last that did not answer a moment ago.
    fn in_order(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let now = Instant::now();
        let mut penalties = self.penalties();
        penalties.retain(|_, until| *until > now);
        let mut servers = servers.to_vec();
        servers.sort_by_key(|server| penalties.contains_key(server));
        servers
    }

    fn penalise(&self, server: SocketAddr, silent: bool) {
        let mut penalties = self.penalties();
        if silent {
            penalties.insert(server, Instant::now() + SERVER_PENALTY);
        } else {
            penalties.remove(&server);
        }
    }

    fn penalties(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.0.penalties.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup for Resolver {
    fn lookup<'a>(&'a self, name: &'a str) -> LookupFuture<'a> {
        Box::pin(self.lookup(name))
    }
}
