//! What is known of one sidecar from before the change.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use portcullis_api::{Direction, EndedConnection, Observations, ProxyInfo, Recent, Transport};
use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::Facts;
use portcullis_policy::diff::Client;
use portcullis_policy::{Answer, EffectivePolicy, Evaluation, MeshSettings, Mode, PolicySet};

use crate::input::mesh_of;

/// Why connections end that were refused, or failed, under whatever policy.
pub const NOT_BY_POLICY: [&str; 26] = [
    "client_gone",
    "app_unreachable",
    "app_timeout",
    "peer_unreachable",
    "peer_timeout",
    "hbone_failed",
    "bad_hbone_request",
    "loop",
    "no_original_destination",
    "foreign_destination",
    "too_many_connections",
    "too_many_on_listener",
    "too_many_of_peer",
    "too_many_handshakes",
    "trust_changed",
    "bad_proxy_header",
    "plaintext_at_gateway",
    "unknown_server_name",
    "no_gateway_route",
    "tls_bad_record",
    "tls_protocol",
    "tls_alert",
    "drain_forced",
    "shutdown",
    "panic",
    "reset",
];

/// Stands for an address that is not known. No IP block has it alone.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What refusals that repeat have in common.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct RefusalPattern {
    direction: Direction,
    /// The client's address, or the destination.
    other_side: String,
    port: Option<u16>,
    reason: String,
}

/// What is known of one sidecar from before the change.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// The former policies, for its workload.
    policy: EffectivePolicy,
    /// Refusals that there were before.
    earlier_refusals: BTreeSet<RefusalPattern>,
    server_first: BTreeSet<u16>,
    /// Whether the change can change how peers are called.
    has_outbound: bool,
}

impl Baseline {
    /// `before` and `after` are the sets of the change. `observations` and `recent` are what the sidecar said before it; `recent` may go on
    /// behind it: what ended after the connection `until` does not count.
    #[must_use]
    pub fn new(
        before: &PolicySet,
        after: &PolicySet,
        mesh: &MeshSettings,
        observations: &Observations,
        recent: &Recent,
        until: u64,
    ) -> Self {
        let proxy = &observations.proxy;
        let earlier = recent.connections.iter().filter(|ended| ended.sequence <= until);
        let server_first = observations.ports.iter().filter(|port| port.server_first).filter_map(|port| port.port);
        Self {
            policy: former(before, mesh, proxy),
            earlier_refusals: earlier.map(RefusalPattern::of).collect(),
            server_first: server_first.collect(),
            has_outbound: changes_callers(before, after),
        }
    }

    /// Whether the change caused that this connection was refused, as far as can be ruled out.
    #[must_use]
    pub fn caused(&self, ended: &EndedConnection) -> bool {
        if ended.decision != "deny" || NOT_BY_POLICY.contains(&ended.reason.as_str()) {
            return false;
        }
        match ended.direction {
            // What a caller is refused depends on the answers of others; only what is new counts.
            Direction::Outbound => self.has_outbound && !self.earlier_refusals.contains(&RefusalPattern::of(ended)),
            Direction::Inbound => self.refused_client(ended),
        }
    }

    fn refused_client(&self, ended: &EndedConnection) -> bool {
        // Before the port is known, nothing was asked of a policy.
        let Some(port) = ended.port else { return false };
        let was = self.policy.mode(port).mode;
        let speaks = |client: Option<Client>| self.was_let_through(ended, port, client);
        match (ended.reason.as_str(), ended.transport) {
            ("plaintext_in_strict", _) => speaks(Some(Client::Plaintext)),
            // Only DISABLE, and a server that speaks first, let a silent client through.
            ("silent_client", _) => match was {
                Mode::Disable => speaks(None),
                Mode::Permissive => self.server_first.contains(&port) && speaks(Some(Client::Plaintext)),
                Mode::Strict => false,
            },
            ("incomplete_hello" | "malformed_hello", _) => was == Mode::Disable && speaks(None),
            ("policy_changed", Transport::Tls)
            | ("authorization_denied" | "authorization_not_allowed", Transport::Tls) => speaks(Some(Client::Tls)),
            // The handshake failed. STRICT demands one of all TLS, PERMISSIVE of the mesh's only, DISABLE of none.
            (_, Transport::Tls) => match was {
                Mode::Strict => false,
                Mode::Disable => speaks(None),
                Mode::Permissive => {
                    ended.mode != Mode::Permissive.as_str()
                        && !self.earlier_refusals.contains(&RefusalPattern::of(ended))
                        && speaks(Some(Client::Tls))
                }
            },
            (_, Transport::Mtls) => speaks(Some(Client::Mtls)),
            (_, Transport::Plaintext) => speaks(Some(Client::Plaintext)),
            (_, Transport::Unknown) => speaks(None),
        }
    }

    /// Whether the former policies let this connection through. Doubt is a yes.
    fn was_let_through(&self, ended: &EndedConnection, port: u16, client: Option<Client>) -> bool {
        let address = |text: &str| text.parse::<SocketAddr>().map_or(NO_ADDRESS, |address| address.ip().to_canonical());
        let source = address(&ended.source);
        let identity = match (client, ended.peer.as_deref().map(SpiffeId::parse)) {
            (Some(Client::Mtls), Some(Ok(identity))) => Some(identity),
            // mTLS without an identity that can be compared.
            (Some(Client::Mtls), _) => return true,
            _ => None,
        };
        let facts = Facts {
            peer: identity.as_ref(),
            source,
            remote: source,
            destination: ended.destination.as_deref().map_or(NO_ADDRESS, address),
            port,
            sni: ended.server_name.as_deref().filter(|_| client != Some(Client::Plaintext)),
        };
        match self.policy.answer(client.map(Client::opening), &facts) {
            Answer::Allow | Answer::Unknown => true,
            Answer::Refuse(_) | Answer::Unauthenticated | Answer::Denied(_) | Answer::NotAllowed(_) => false,
        }
    }
}

/// The former policies for the workload of a sidecar.
fn former(before: &PolicySet, mesh: &MeshSettings, proxy: &ProxyInfo) -> EffectivePolicy {
    let mesh = mesh_of(proxy, mesh);
    // What a break-glass document let through, its end may refuse.
    let before = &before.clone().without_break_glass();
    EffectivePolicy::evaluate(before, &mesh, &proxy.namespace, &proxy.labels, Evaluation::Enforced)
}

impl RefusalPattern {
    fn of(ended: &EndedConnection) -> Self {
        let host = |text: &str| text.parse::<SocketAddr>().map_or_else(|_| text.to_owned(), |it| it.ip().to_string());
        let other_side = match ended.direction {
            Direction::Inbound => host(&ended.source),
            Direction::Outbound => {
                ended.service.clone().or_else(|| ended.destination.as_deref().map(host)).unwrap_or_default()
            }
        };
        Self { direction: ended.direction, other_side, port: ended.port, reason: ended.reason.clone() }
    }
}

/// Whether callers are made to call otherwise: the service directory changes, or what is DISABLE, where mTLS is not understood.
fn changes_callers(before: &PolicySet, after: &PolicySet) -> bool {
    let disables = |set: &PolicySet| -> BTreeSet<_> {
        let disabled = set.policies().iter().filter(|policy| {
            policy.mode.into_iter().chain(policy.ports.values().copied().flatten()).any(|mode| mode == Mode::Disable)
        });
        disabled
            .map(|it| (it.namespace.clone(), it.name.clone(), it.selector.clone(), it.mode, it.ports.clone()))
            .collect()
    };
    before.service_entries() != after.service_entries()
        || before.workload_entries() != after.workload_entries()
        || before.destination_rules() != after.destination_rules()
        || disables(before) != disables(after)
}

#[cfg(test)]
mod tests {
    use portcullis_api::{Observations, PortMode};
    use portcullis_policy::Source;

    use super::*;

    fn set(modes: &[(&str, &str)]) -> PolicySet {
        let text: Vec<String> = modes
            .iter()
            .map(|(namespace, mode)| {
                format!(
                    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: {namespace}}}\n\
                     spec: {{mtls: {{mode: {mode}}}}}\n"
                )
            })
            .collect();
        let text = text.join("---\n");
        PolicySet::load(&[Source { file: "p.yaml".to_owned(), text: text.into_bytes() }]).set
    }

    fn sidecar() -> Observations {
        let proxy = ProxyInfo { name: "cart".to_owned(), namespace: "shop".to_owned(), ..ProxyInfo::default() };
        let ports = vec![PortMode { port: Some(25), server_first: true, ..PortMode::default() }];
        Observations { proxy, ports, ..Observations::default() }
    }

    fn ended(reason: &str, transport: Transport, port: u16, mode: &str) -> EndedConnection {
        let value = serde_json::json!({
            "sequence": 7, "connId": 1, "endedAt": "2026-11-30T00:00:00Z", "durationMs": 1, "direction": "inbound",
            "source": "10.0.0.9:5000", "port": port, "mode": mode, "transport": transport, "decision": "deny",
            "reason": reason, "policy": "shop/default",
        });
        serde_json::from_value(value).unwrap()
    }

    fn baseline(before: &str, recent: &Recent) -> Baseline {
        let (before, after) = (set(&[("shop", before)]), set(&[("shop", "STRICT")]));
        Baseline::new(&before, &after, &MeshSettings::default(), &sidecar(), recent, 6)
    }

    #[test]
    fn a_refusal_counts_if_the_former_mode_let_the_connection_through() {
        use Transport::{Plaintext, Tls, Unknown};
        let rows = [
            // reason, transport, port, by PERMISSIVE, by DISABLE, by STRICT
            ("plaintext_in_strict", Plaintext, 8080, true, true, false),
            ("policy_changed", Plaintext, 8080, true, true, false),
            ("policy_changed", Tls, 8080, true, true, false),
            ("policy_changed", Unknown, 8080, true, true, true),
            ("no_certificate", Tls, 8080, true, true, false),
            ("peer_alert", Tls, 8080, true, true, false),
            ("silent_client", Unknown, 25, true, true, false),
            ("silent_client", Unknown, 8080, false, true, false),
            ("malformed_hello", Unknown, 8080, false, true, false),
            ("app_unreachable", Plaintext, 8080, false, false, false),
            ("too_many_connections", Unknown, 8080, false, false, false),
        ];
        for (reason, transport, port, permissive, disable, strict) in rows {
            for (before, expected) in [("PERMISSIVE", permissive), ("DISABLE", disable), ("STRICT", strict)] {
                let found = baseline(before, &Recent::default()).caused(&ended(reason, transport, port, "STRICT"));
                assert_eq!(found, expected, "{reason} {transport:?} {port} after {before}");
            }
        }
        let allowed = EndedConnection { decision: "allow".to_owned(), ..ended("-", Plaintext, 8080, "STRICT") };
        assert!(!baseline("PERMISSIVE", &Recent::default()).caused(&allowed));
    }

    #[test]
    fn a_handshake_that_failed_before_in_the_same_way_is_no_effect_of_the_change() {
        let failed = ended("unknown_ca", Transport::Tls, 8080, "STRICT");
        let before = EndedConnection { sequence: 6, source: "10.0.0.9:4000".to_owned(), ..failed.clone() };
        let recent = |connection| Recent { connections: vec![connection], ..Recent::default() };
        assert!(baseline("PERMISSIVE", &Recent::default()).caused(&failed));
        assert!(!baseline("PERMISSIVE", &recent(before.clone())).caused(&failed));
        let later = EndedConnection { sequence: 7, ..before.clone() };
        assert!(baseline("PERMISSIVE", &recent(later)).caused(&failed), "what ended after the change says nothing");
        let other = EndedConnection { source: "10.0.0.8:4000".to_owned(), ..before };
        assert!(baseline("PERMISSIVE", &recent(other)).caused(&failed));
        // Under PERMISSIVE only TLS of the mesh is terminated, as before.
        assert!(!baseline("PERMISSIVE", &Recent::default()).caused(&ended(
            "unknown_ca",
            Transport::Tls,
            8080,
            "PERMISSIVE"
        )));
    }

    #[test]
    fn the_former_rules_decide_about_an_identity() {
        let rules = |principal: &str| {
            let text = format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop}}\n\
                 spec: {{rules: [{{from: [{{source: {{principals: [\"{principal}\"]}}}}]}}]}}\n"
            );
            PolicySet::load(&[Source { file: "a.yaml".to_owned(), text: text.into_bytes() }]).set
        };
        let web = "cluster.local/ns/shop/sa/web";
        let refused = EndedConnection {
            peer: Some(format!("spiffe://{web}")),
            ..ended("authorization_not_allowed", Transport::Mtls, 8080, "STRICT")
        };
        let caused = |before: &PolicySet| {
            Baseline::new(before, &rules("x"), &MeshSettings::default(), &sidecar(), &Recent::default(), 0)
                .caused(&refused)
        };
        assert!(caused(&rules(web)) && caused(&PolicySet::default()));
        assert!(!caused(&rules("cluster.local/ns/shop/sa/other")));
        let nobody = EndedConnection { peer: None, ..refused.clone() };
        let before = rules(web);
        let sidecar = Baseline::new(&before, &before, &MeshSettings::default(), &sidecar(), &Recent::default(), 0);
        assert!(sidecar.caused(&nobody), "an identity that is not told is doubt");
    }

    #[test]
    fn callers_count_only_if_the_change_can_concern_them_and_the_failure_is_new() {
        let failed = EndedConnection {
            direction: Direction::Outbound,
            destination: Some("10.0.0.5:8080".to_owned()),
            ..ended("protocol", Transport::Tls, 8080, "mtls")
        };
        let caused = |before: &PolicySet, after: &PolicySet, recent: &Recent| {
            Baseline::new(before, after, &MeshSettings::default(), &sidecar(), recent, 9).caused(&failed)
        };
        let (permissive, strict, disable) =
            (set(&[("shop", "PERMISSIVE")]), set(&[("shop", "STRICT")]), set(&[("shop", "DISABLE")]));
        assert!(!caused(&permissive, &strict, &Recent::default()));
        assert!(caused(&permissive, &disable, &Recent::default()));
        let recent = Recent { connections: vec![failed.clone()], ..Recent::default() };
        assert!(!caused(&permissive, &disable, &recent));
    }
}
