//! `apply --guard`: a change that is watched, and taken back by itself if it cuts clients off.
//!
//! Before the change every sidecar is asked what it has in force and whom it refuses already, and the recovery file is written
//! ([`record`]). After it the sidecars are asked twice a second ([`watch`]) until the time is over or something speaks against the change
//! ([`progress`]). Whatever is not known speaks against it.

mod guarded;
mod progress;
mod record;
mod resume;
mod screen;
mod start;
mod take_back;
mod watch;

use std::path::Path;
use std::time::Duration;

use self::progress::Limits;
use self::record::{Found, Record};
use crate::commands::proxies::ProxiesArgs;
use crate::commands::values;
use crate::exit::{Exit, Failure};

pub(super) use self::guarded::{Guarded, Prepare};
pub(super) use self::resume::end;

/// How a change is guarded.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Guard")]
pub(super) struct GuardArgs {
    /// Watch the sidecars for so long after the change, such as 10m, and take it back if it refuses clients that were let through before
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, conflicts_with = "dry_run")]
    guard: Option<Duration>,
    /// How many such connections may be refused
    #[arg(long, value_name = "N", default_value_t = 0, requires = "guard")]
    max_denied: u64,
    /// How long a sidecar may take until it has the change in force; then it is taken back
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, default_value = "60s", requires = "guard")]
    load_timeout: Duration,
    /// How long a sidecar may give no answer; then the change is taken back
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, default_value = "30s", requires = "guard")]
    max_silence: Duration,
    /// Do not mind sidecars without an answer; whom they refuse is not seen
    #[arg(long, requires = "guard")]
    keep_unanswered: bool,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

impl GuardArgs {
    /// Where the sidecars are.
    pub(super) const fn proxies(&self) -> &ProxiesArgs {
        &self.proxies
    }

    /// Whether a guard is asked for.
    pub(super) const fn is_on(&self) -> bool {
        self.guard.is_some()
    }

    /// The limits, if there is a guard.
    const fn limits(&self) -> Option<Limits> {
        let Some(guard) = self.guard else { return None };
        Some(Limits {
            guard,
            max_denied: self.max_denied,
            load: self.load_timeout,
            silence: self.max_silence,
            keep_unanswered: self.keep_unanswered,
        })
    }
}

/// How to end a guarded change whose command is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EndBy {
    /// Watch it again.
    Resume,
    /// Take it back.
    TakeBack,
    /// Leave it in force.
    Accept,
}

/// What there is to say about a guarded change in a policy folder.
pub(in crate::commands) fn notice(folder: &Path) -> Option<String> {
    let shown = folder.display();
    Some(match record::find(folder)? {
        Found::Watched(record) => {
            let Record { pid, until, .. } = &record;
            format!("{shown}: a guarded change of {} is being watched by process {pid} until {until}", what(&record))
        }
        Found::Left(record) => format!(
            "{shown}: a guarded change of {} from {} is in force and nobody watches it: the command was killed. End it: `portcullis \
             apply --policies {shown}` with --take-back, --resume or --accept",
            what(&record),
            record.started_at
        ),
        Found::Unreadable(why) => {
            format!("{shown}/{}: there is a guarded change, and its recovery file cannot be read: {why}", record::NAME)
        }
    })
}

fn what(record: &Record) -> String {
    record.resources.join(", ")
}

/// Refuses to change a folder in which a guarded change is open: what would be taken back, and why, could not be told any more.
pub(super) fn refuse_if_open(folder: &Path) -> Result<(), Failure> {
    notice(folder).map_or(Ok(()), |notice| Err(Failure::message(Exit::Failure, notice)))
}

#[cfg(test)]
mod tests {
    use portcullis_proxy::outcome::Reason;
    use portcullis_report::guard::NOT_BY_POLICY;
    use portcullis_telemetry::Decision;

    /// Refusals that a change of policies can cause: by the mode and the handshake that it asks for, by rules, and by what
    /// ServiceEntries and DestinationRules say of a destination.
    const BY_POLICY: [Reason; 32] = [
        Reason::PlaintextInStrict,
        Reason::SilentClient,
        Reason::IncompleteHello,
        Reason::MalformedHello,
        Reason::HandshakeTimeout,
        Reason::NoCertificate,
        Reason::UnknownCa,
        Reason::Expired,
        Reason::NotYetValid,
        Reason::BadCertificate,
        Reason::TdMismatch,
        Reason::IdMismatch,
        Reason::ServerNameMismatch,
        Reason::Protocol,
        Reason::PeerAlert,
        Reason::PeerClosed,
        Reason::HandshakeReset,
        Reason::HandshakeIo,
        Reason::NoIdentity,
        Reason::AuthorizationDenied,
        Reason::AuthorizationNotAllowed,
        Reason::PolicyChanged,
        Reason::NoRoute,
        Reason::NameUnresolved,
        Reason::RouteConflict,
        Reason::ServiceConflict,
        Reason::NoService,
        Reason::NoEndpoint,
        Reason::NoServerIdentity,
        Reason::Downgrade,
        Reason::OriginationUnusable,
        Reason::HboneRefused,
    ];

    #[test]
    fn of_every_refusal_it_is_said_whether_policies_can_cause_it() {
        for reason in Reason::ALL {
            let by_policy = BY_POLICY.contains(reason);
            let not_by_policy = NOT_BY_POLICY.contains(&reason.label());
            let refuses = reason.outcome().decision == Decision::Deny;
            assert!(!(by_policy && not_by_policy), "{reason} stands in both lists");
            assert!(!refuses || by_policy || not_by_policy, "{reason}: add it to BY_POLICY here or to NOT_BY_POLICY");
        }
        for label in NOT_BY_POLICY {
            assert!(Reason::ALL.iter().any(|reason| reason.label() == label), "{label}");
        }
    }
}
