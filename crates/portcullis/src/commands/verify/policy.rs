//! What the policy says about the port: named, computed from files, or asked from the sidecar.

use std::time::Duration;

use portcullis_config::Settings;
use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::Facts;
use portcullis_policy::{EffectivePolicy, Mode};
use portcullis_verify::Policy;
use serde::Deserialize;

use super::args::Args;
use crate::commands::can;
use crate::commands::subject::LoadedSubject;
use crate::exit::{Exit, Failure};
use portcullis_discovery::Url;

/// The policy, and where it comes from.
pub(super) struct Found {
    pub(super) policy: Policy,
    /// `namespace/name (file:line)`, or whom it was asked from.
    pub(super) decided_by: String,
}

const WITHIN: Duration = Duration::from_secs(5);

pub(super) fn find(args: &Args, settings: Option<&Settings>, peer: Option<&SpiffeId>) -> Result<Found, Failure> {
    let port = args.port.unwrap_or_else(|| workload_port(args, settings));
    let allow_tls12 = args.allow_tls12 || settings.is_some_and(|settings| settings.tls.allow_tls12);
    if let Some(mode) = args.mode {
        return Ok(Found { policy: Policy { allow_tls12, ..Policy::mode(mode) }, decided_by: "--mode".to_owned() });
    }
    if let Some(admin) = &args.admin {
        let asked = ask(admin, port)?;
        return Ok(Found {
            policy: Policy { allow_tls12, ..Policy::mode(asked.mode()?) },
            decided_by: asked.label(admin),
        });
    }
    if args.subject.config.is_none() && args.subject.file.is_empty() {
        let message = "say what the policy is: --mode STRICT, the sidecar's configuration (-c FILE), policies with the namespace of the \
                       workload (-f PATH -n NS), or the sidecar's admin address (--admin URL)";
        return Err(Failure::message(Exit::Usage, message));
    }
    let LoadedSubject { set, mesh, namespace, labels, .. } = args.subject.load()?;
    let effective = EffectivePolicy::resolve(&set, &mesh, &namespace, &labels);
    let decided = effective.mode(port);
    let allows = |peer: Option<&SpiffeId>| {
        let facts =
            Facts { peer, source: can::SOURCE, remote: can::SOURCE, destination: can::DESTINATION, port, sni: None };
        effective.authorizer().authorize(&facts).is_allowed()
    };
    let at = decided.by.file.as_ref().zip(decided.by.line).map(|(file, line)| format!(" ({file}:{line})"));
    Ok(Found {
        policy: Policy {
            mode: decided.mode,
            allow_tls12,
            allows_identity: peer.is_none() || allows(peer),
            allows_anonymous: allows(None),
        },
        decided_by: format!("{}{}", decided.by.label(), at.unwrap_or_default()),
    })
}

/// The port that policies speak of: an explicit listener may have another one.
fn workload_port(args: &Args, settings: Option<&Settings>) -> u16 {
    let own = args.target.port;
    let ports = settings.map(|settings| settings.inbound.ports.as_slice()).unwrap_or_default();
    ports.iter().find(|port| port.listen.port() == own).map_or(own, |port| port.port)
}

/// What `/explain` answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    mode: String,
    decided_by: DecidedBy,
}

#[derive(Deserialize)]
struct DecidedBy {
    namespace: Option<String>,
    name: Option<String>,
}

impl Explained {
    fn mode(&self) -> Result<Mode, Failure> {
        let known = Mode::ALL.into_iter().find(|mode| mode.as_str() == self.mode);
        known.ok_or_else(|| {
            Failure::message(Exit::Failure, format!("the sidecar names the mode {:?}, which is not known", self.mode))
        })
    }

    fn label(&self, admin: &Url) -> String {
        match (&self.decided_by.namespace, &self.decided_by.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name} (says {admin})"),
            _ => format!("default (says {admin})"),
        }
    }
}

fn ask(admin: &Url, port: u16) -> Result<Explained, Failure> {
    let url = admin.with_path(&format!("/explain?port={port}"));
    let answer = url.get(WITHIN).map_err(|error| Failure::message(Exit::Unreachable, format!("{url}: {error}")))?;
    if answer.status != 200 {
        let message = format!("{url}: status {}: {}", answer.status, answer.body.trim());
        return Err(Failure::message(Exit::Unreachable, message));
    }
    serde_json::from_str(&answer.body)
        .map_err(|error| Failure::message(Exit::Unreachable, format!("{url}: not the answer of a sidecar: {error}")))
}
