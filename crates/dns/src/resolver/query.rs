//! One question to one server, over UDP, and over TCP if the answer is truncated.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::timeout;

use super::answer::{Answer, DEFAULT_VALIDITY, normalized};
use super::settings::Settings;
use crate::error::LookupError;

/// The answers of one server about one name.
pub(super) struct Reply {
    a: Result<Records, Failure>,
    aaaa: Result<Records, Failure>,
}

/// The addresses of one family; none if the server says so.
struct Records {
    addresses: Vec<IpAddr>,
    valid_for: Duration,
}

/// Why there is no answer about one family.
struct Failure {
    error: LookupError,
    /// The server did not say anything.
    silent: bool,
}

/// Asks for A and AAAA records at once. A resolver of its own for each question shares no connection, and no question that
/// somebody else asked before, with any other. Each of the two ends by itself after `within`, whatever is under way, so that the
/// answer of one is not lost while the other is awaited; hickory's own limit starts anew for TCP.
pub(super) async fn ask(server: SocketAddr, settings: &Settings, name: &Name, within: Duration) -> Reply {
    let resolver = match resolver(server, settings, within) {
        Ok(resolver) => resolver,
        Err(error) => return Reply::failed(&error, server),
    };
    let records = async |kind| match timeout(within, resolver.lookup(name.clone(), kind)).await {
        Ok(answer) => records(server, answer),
        Err(_elapsed) => Err(Failure::silent(server)),
    };
    let (a, aaaa) = tokio::join!(records(RecordType::A), records(RecordType::AAAA));
    Reply { a, aaaa }
}

pub(super) fn resolver(server: SocketAddr, settings: &Settings, within: Duration) -> Result<TokioResolver, NetError> {
    let at = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
    let config = ResolverConfig::from_name_servers(vec![NameServerConfig::new(server.ip(), true, connections)]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = within;
    options.attempts = 0;
    options.edns0 = settings.edns0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    builder.build()
}

/// Whether an error is the answer that there is no such name, or nothing of the kind that was asked for.
pub(super) const fn is_no_such_name(error: &NetError) -> bool {
    matches!(
        error,
        NetError::Dns(DnsError::NoRecordsFound(NoRecords {
            response_code: ResponseCode::NXDomain | ResponseCode::NoError,
            ..
        }))
    )
}

fn records(server: SocketAddr, answer: Result<hickory_resolver::lookup::Lookup, NetError>) -> Result<Records, Failure> {
    match answer {
        Ok(lookup) => {
            // With the aliases on the way, since each may change.
            let seconds = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
            let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
            Ok(Records { addresses, valid_for: Duration::from_secs(seconds.into()) })
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords {
            response_code: ResponseCode::NXDomain | ResponseCode::NoError,
            negative_ttl,
            ..
        }))) => {
            let valid_for = negative_ttl.map_or(DEFAULT_VALIDITY, |seconds| Duration::from_secs(seconds.into()));
            Ok(Records { addresses: Vec::new(), valid_for })
        }
        Err(error) => Err(Failure::new(&error, server)),
    }
}

impl Failure {
    fn new(error: &NetError, server: SocketAddr) -> Self {
        let code = match error {
            NetError::Dns(DnsError::ResponseCode(code)) => Some(code),
            NetError::Dns(DnsError::NoRecordsFound(none)) => Some(&none.response_code),
            _ => None,
        };
        match code {
            Some(code) => Self { error: LookupError::Refused { server, code: code.to_string() }, silent: false },
            None => Self { error: LookupError::Unreachable { server, why: error.to_string() }, silent: true },
        }
    }

    fn silent(server: SocketAddr) -> Self {
        Self { error: LookupError::Unreachable { server, why: "no answer in time".to_owned() }, silent: true }
    }
}

impl Reply {
    fn failed(error: &NetError, server: SocketAddr) -> Self {
        Self { a: Err(Failure::new(error, server)), aaaa: Err(Failure::new(error, server)) }
    }

    /// Whether the server answered neither question.
    pub(super) fn is_silent(&self) -> bool {
        let silent = |answer: &Result<Records, Failure>| answer.as_ref().is_err_and(|failure| failure.silent);
        silent(&self.a) && silent(&self.aaaa)
    }

    /// Whether both questions are answered.
    pub(super) const fn is_complete(&self) -> bool {
        self.a.is_ok() && self.aaaa.is_ok()
    }

    /// This reply, with what only the other server answered.
    pub(super) fn better(self, other: Self) -> Self {
        // An error that a server sent says more than silence.
        let better = |first: Result<Records, Failure>, second: Result<Records, Failure>| match (first, second) {
            (Err(first), Err(second)) if first.silent && !second.silent => Err(second),
            (Err(_), Ok(second)) => Ok(second),
            (first, _) => first,
        };
        Self { a: better(self.a, other.a), aaaa: better(self.aaaa, other.aaaa) }
    }

    /// The addresses of both families. With addresses of one, a failure of the other makes the answer incomplete; without any
    /// address it is the answer.
    pub(super) fn into_answer(self) -> Result<Answer, LookupError> {
        let mut answer = Answer { addresses: Vec::new(), valid_for: Duration::MAX, incomplete: None };
        let mut failed = None;
        for family in [self.a, self.aaaa] {
            match family {
                Ok(Records { addresses, valid_for }) => {
                    answer.addresses.extend(addresses);
                    answer.valid_for = answer.valid_for.min(valid_for);
                }
                Err(failure) => failed = failed.or(Some(failure.error)),
            }
        }
        match failed {
            Some(error) if answer.addresses.is_empty() => Err(error),
            failed => Ok(Answer { addresses: normalized(answer.addresses), incomplete: failed, ..answer }),
        }
    }
}
