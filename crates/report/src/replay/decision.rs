//! One observation under two sets of policies.

use std::net::{IpAddr, Ipv4Addr};

use portcullis_api::{Mode as ApiMode, Observation, Observations, PortMode, Transport};
use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::{
    AuthorizationPolicy, DENIED, Facts, KnownFacts, MatchedRule, NOT_ALLOWED, OpenRule,
};
use portcullis_policy::diff::Client;
use portcullis_policy::{Answer, Decided, EffectivePolicy};

use crate::input::{WorkloadName, mesh_of};
use crate::replay::model::{Change, Decider, Drift, Options};
use crate::text::{clean, clean_long};
use crate::window::Connections;

/// Stands for an address that was not recorded. No answer depends on it.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Why connections are refused that policies refuse. Others are refused for what they are, under whatever policy.
const POLICY_REASONS: [&str; 4] = [DENIED, NOT_ALLOWED, "plaintext_in_strict", "policy_changed"];
/// The most policies that are named for one refusal.
const NAMED: usize = 10;

/// What a sidecar decides with.
pub(super) struct Sidecar {
    in_force: Option<EffectivePolicy>,
    new: EffectivePolicy,
}

/// What a sidecar recorded of one peer.
pub(super) struct Recorded<'o> {
    pub(super) observation: &'o Observation,
    /// In the window.
    pub(super) counted: Connections,
}

/// What was found out about one observation.
pub(super) struct Found {
    pub(super) change: Change,
    pub(super) connections: u64,
    pub(super) reason: &'static str,
    pub(super) decided_by: Vec<Decider>,
    pub(super) note: Option<String>,
}

/// What a set of policies says.
enum Decision {
    Allow,
    Refuse {
        reason: &'static str,
        decided_by: Vec<Decider>,
    },
    /// It is not known.
    Open {
        decided_by: Vec<Decider>,
        note: String,
    },
}

impl Sidecar {
    pub(super) fn new(answer: &Observations, options: &Options<'_>) -> Self {
        let proxy = &answer.proxy;
        let mesh = mesh_of(proxy, options.mesh);
        let resolve = |set| EffectivePolicy::evaluate(set, &mesh, &proxy.namespace, &proxy.labels, options.evaluation);
        Self { in_force: options.in_force.map(resolve), new: resolve(options.new) }
    }

    /// Ports that have another mode than by the policies in force.
    pub(super) fn drift(&self, ports: &[PortMode], workload: &WorkloadName) -> Vec<Drift> {
        let Some(policy) = &self.in_force else { return Vec::new() };
        let differs = |port: &PortMode| {
            let by_policies = port.port.map_or_else(|| policy.workload(), |port| policy.mode(port)).mode.as_str();
            let observed = port.mode.as_str();
            (port.mode != ApiMode::Unknown && observed != by_policies).then(|| Drift {
                workload: workload.clone(),
                port: port.port,
                observed,
                by_policies,
            })
        };
        ports.iter().filter_map(differs).collect()
    }

    /// What changes for the peer, if anything.
    pub(super) fn compare(&self, recorded: &Recorded<'_>) -> Option<Found> {
        let Connections { allowed, refused } = recorded.counted;
        // Refused for what it was, not by a policy, it stays refused.
        let refused = if recorded.refused_by_policy() { refused } else { 0 };
        let was = match &self.in_force {
            Some(policy) => recorded.decide(policy),
            None if allowed > 0 => Decision::Allow,
            None => return None,
        };
        let now = recorded.decide(&self.new);
        let found = |change, connections, reason, decided_by, note| {
            (connections > 0).then_some(Found { change, connections, reason, decided_by, note })
        };
        match (was, now) {
            (Decision::Allow | Decision::Open { .. }, Decision::Refuse { reason, decided_by }) => {
                found(Change::Loses, allowed, reason, decided_by, None)
            }
            (Decision::Refuse { reason, decided_by }, Decision::Allow) => {
                found(Change::Gains, allowed.saturating_add(refused), reason, decided_by, None)
            }
            (_, Decision::Open { decided_by, note }) => {
                found(Change::NotDecided, allowed.saturating_add(refused), "not_recorded", decided_by, Some(note))
            }
            (Decision::Open { decided_by, note }, Decision::Allow) => {
                found(Change::NotDecided, refused, "not_recorded", decided_by, Some(note))
            }
            (Decision::Allow, Decision::Allow) | (Decision::Refuse { .. }, Decision::Refuse { .. }) => None,
        }
    }
}

impl Recorded<'_> {
    fn refused_by_policy(&self) -> bool {
        let last = self.observation.last_refusal.as_ref();
        last.is_some_and(|last| POLICY_REASONS.contains(&last.reason.as_str()))
    }

    /// Decides as the sidecar would.
    fn decide(&self, policy: &EffectivePolicy) -> Decision {
        let Observation { port, transport, peer, allowed, refused, .. } = self.observation;
        let open = |note: String| Decision::Open { decided_by: Vec::new(), note };
        let identity = match (transport, &peer.identity) {
            (Transport::Mtls, Some(text)) => match SpiffeId::parse(text) {
                Ok(id) => Some(id),
                Err(error) => return open(format!("its identity {} is none: {error}", clean_long(text))),
            },
            _ => None,
        };
        let opening = match transport {
            Transport::Mtls => Some(Client::Mtls.opening()),
            Transport::Tls => Some(Client::Tls.opening()),
            Transport::Plaintext => Some(Client::Plaintext.opening()),
            Transport::Unknown => None,
        };
        // All facts of the last connection are recorded, and if there was one only, it is the last.
        let is_one = allowed.saturating_add(*refused) == 1;
        let facts = Facts {
            peer: identity.as_ref(),
            source: peer.address.unwrap_or(NO_ADDRESS),
            remote: peer.address.unwrap_or(NO_ADDRESS),
            destination: peer.dialled.unwrap_or(NO_ADDRESS),
            port: *port,
            sni: peer.server_name.as_deref().filter(|_| *transport != Transport::Plaintext),
        };
        // A peer without an identity is told from others by its address.
        let source = peer.address.is_some() && (is_one || peer.identity.is_none());
        let known = KnownFacts {
            source,
            remote: source,
            destination: peer.dialled.is_some() && is_one,
            sni: is_one || *transport == Transport::Plaintext,
        };
        match policy.answer_known(opening, &facts, known) {
            Ok(answer) => decision(answer, policy.mode(*port)),
            Err(unknown) => self.open(policy, &facts, unknown),
        }
    }

    /// Not decided for all connections; what is recorded decides the last one.
    fn open(&self, policy: &EffectivePolicy, facts: &Facts<'_>, OpenRule { rule, key }: OpenRule<'_>) -> Decision {
        let is_recorded = match key {
            "source.ip" | "remote.ip" => facts.source != NO_ADDRESS,
            "destination.ip" => facts.destination != NO_ADDRESS,
            _ => true,
        };
        let shown = match key {
            "source.ip" | "remote.ip" => facts.source.to_string(),
            "destination.ip" => facts.destination.to_string(),
            _ => facts.sni.map_or_else(|| "none".to_owned(), clean),
        };
        let note = if is_recorded {
            // Whatever its first bytes were, the rule was reached.
            let allowed = policy.authorizer().authorize(facts).is_allowed();
            let last = if allowed { "allowed" } else { "refused" };
            format!(
                "the rule compares {key}, which is recorded for the last connection only: with {shown} it is {last}"
            )
        } else {
            format!("the rule compares {key}, which is not recorded")
        };
        Decision::Open { decided_by: vec![Decider::rule(rule)], note }
    }
}

fn decision(answer: Answer<'_>, mode: &Decided) -> Decision {
    match answer {
        Answer::Allow => Decision::Allow,
        Answer::Denied(by) => Decision::Refuse { reason: DENIED, decided_by: vec![Decider::rule(by)] },
        Answer::NotAllowed(policies) => {
            let decided_by = policies.iter().take(NAMED).map(|policy| Decider::policy(policy)).collect();
            Decision::Refuse { reason: NOT_ALLOWED, decided_by }
        }
        Answer::Refuse(_) | Answer::Unauthenticated => {
            Decision::Refuse { reason: "mtls_required", decided_by: vec![Decider::mode(mode)] }
        }
        Answer::Unknown => {
            let note = format!("{} depends on its first bytes, which nobody looked at under DISABLE", mode.mode);
            Decision::Open { decided_by: vec![Decider::mode(mode)], note }
        }
    }
}

impl Decider {
    fn rule(MatchedRule { policy, rule, line, .. }: MatchedRule<'_>) -> Self {
        Self { rule: Some(rule), line: Some(line), ..Self::policy(policy) }
    }

    fn policy(policy: &AuthorizationPolicy) -> Self {
        Self {
            kind: "AuthorizationPolicy",
            namespace: Some(policy.namespace.clone()),
            name: Some(policy.name.clone()),
            action: Some(policy.action),
            rule: None,
            file: Some(policy.file.clone()),
            line: Some(policy.line),
        }
    }

    /// `namespace/name`, or `default`.
    pub(super) fn label(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => "default".to_owned(),
        }
    }

    /// In words, with where it is written.
    pub(super) fn shown(&self) -> String {
        let rule = self.rule.map_or_else(String::new, |rule| format!("rule {rule} of "));
        let what = self.action.map_or_else(|| self.kind.to_owned(), |action| format!("{action} policy"));
        let written =
            self.file.as_ref().zip(self.line).map_or_else(String::new, |(file, line)| format!(" ({file}:{line})"));
        format!("{rule}{what} {}{written}", self.label())
    }

    fn mode(Decided { by, .. }: &Decided) -> Self {
        Self {
            kind: "PeerAuthentication",
            namespace: by.namespace.clone(),
            name: by.name.clone(),
            action: None,
            rule: None,
            file: by.file.clone(),
            line: by.line,
        }
    }
}
