//! From the answers of sidecars to what the page shows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use portcullis_api::{Changes, Mode, Observations, PortMode, Recent, Timestamp, Transport};
use portcullis_report::guard::NOT_BY_POLICY;
use portcullis_report::readiness::{self, Readiness};
use portcullis_report::{AddressBook, Answer, Names, Party, Paste, Window, WorkloadName, edges};

use crate::view::{Certificate, Change, Edge, Node, PlaintextClient, Port, PortStatus, Refused, TRAFFIC_SECONDS, View};
use portcullis_report::length;

/// The scope of what break-glass decides.
const BREAK_GLASS: &str = "break-glass";
const TRAFFIC: Window = Window { seconds: TRAFFIC_SECONDS };
/// The options of readiness.
const READINESS: Window = Window { seconds: 7 * 86_400 };

/// What one sidecar answered.
#[derive(Clone, Debug, Default)]
pub struct Sidecar {
    /// `/observations`.
    pub observations: Observations,
    /// `/recent?denied=true`.
    pub recent: Recent,
    /// `/certs`.
    pub certificates: Vec<Certificate>,
    /// `/changes`.
    pub changes: Changes,
}

/// Makes the view. The label of a sidecar is what the caller calls it; the error is why it did not answer.
#[must_use]
pub fn view(title: String, sidecars: &[(String, Result<Sidecar, String>)], names: &Names, now: Timestamp) -> View {
    let answer = |(label, sidecar): &(String, Result<Sidecar, String>)| Answer {
        label: label.clone(),
        observations: sidecar.as_ref().map(|sidecar| sidecar.observations.clone()).map_err(Clone::clone),
    };
    let answers: Vec<Answer> = sidecars.iter().map(answer).collect();
    let options = readiness::Options { window: READINESS, min_observation: 0, namespace: None, now };
    let readiness = Readiness::new(&answers, names, &[], &options);
    let answered: Vec<&Sidecar> = sidecars.iter().filter_map(|(_, sidecar)| sidecar.as_ref().ok()).collect();
    let excepted: BTreeSet<(&str, &str, u16)> =
        readiness.items.iter().filter(|port| port.exception.is_some()).map(key).collect();
    let (nodes, mut edges) = graph(&answers, &answered, names, now);
    for edge in &mut edges {
        let to = nodes.get(edge.to).map(|node| (node.namespace.as_str(), node.name.as_str(), edge.port));
        edge.is_exception = to.is_some_and(|to| excepted.contains(&to));
    }
    let mut view = View {
        title,
        now,
        asked: sidecars.len(),
        answered: answered.len(),
        unreachable: readiness.unanswered.iter().map(|it| (it.address.clone(), it.message.clone())).collect(),
        plaintext: readiness.items.iter().filter(|port| is_open(port)).flat_map(|port| plaintext(port, now)).collect(),
        break_glass: break_glass(&answered, now),
        refused: refused(&answered, names),
        ports: readiness
            .items
            .iter()
            .map(|seen| port(seen, now))
            .chain(answered.iter().filter_map(|it| other_ports(it, now)))
            .collect(),
        certificates: answered.iter().flat_map(|sidecar| sidecar.certificates.iter().cloned()).collect(),
        changes: answered.iter().flat_map(|sidecar| changes(sidecar)).collect(),
        nodes,
        edges,
    };
    view.plaintext.sort_by_key(|client| std::cmp::Reverse(client.last_seen));
    view.ports.sort_by(|one, other| {
        (&one.workload, one.port.is_none(), one.port).cmp(&(&other.workload, other.port.is_none(), other.port))
    });
    view.ports.dedup_by(|one, other| (&one.workload, one.port) == (&other.workload, other.port));
    view.certificates.sort_by_key(|certificate| certificate.not_after);
    view.changes.sort_by_key(|change| std::cmp::Reverse(change.at));
    view
}

fn key(port: &readiness::Port) -> (&str, &str, u16) {
    (&port.workload.namespace, &port.workload.name, port.port)
}

fn graph(answers: &[Answer], answered: &[&Sidecar], names: &Names, now: Timestamp) -> (Vec<Node>, Vec<Edge>) {
    let mut replicas: BTreeMap<Party, Vec<&[PortMode]>> = BTreeMap::new();
    for sidecar in answered {
        let Observations { proxy, ports, .. } = &sidecar.observations;
        replicas.entry(Party::of(proxy)).or_default().push(ports);
    }
    let modes = |party: &Party| replicas.get(party).map_or(&[][..], Vec::as_slice);
    let mut parties: BTreeMap<Party, usize> = BTreeMap::new();
    let (mut nodes, mut drawn) = (Vec::new(), Vec::new());
    let mut number = |party: Party| {
        let next = nodes.len();
        *parties.entry(party).or_insert_with_key(|party| {
            nodes.push(Node {
                name: party.name.clone(),
                namespace: party.namespace.clone().unwrap_or_default(),
                is_meshed: party.is_meshed(),
                mode: mode_of(modes(party)),
            });
            next
        })
    };
    for party in replicas.keys() {
        number(party.clone());
    }
    for edge in edges(answers, names, TRAFFIC, now) {
        // What was let through before the port became STRICT is over.
        let plaintext = if is_strict(modes(&edge.to), edge.port) { 0 } else { edge.plaintext.saturating_add(edge.tls) };
        if (edge.mtls, plaintext, edge.refused) == (0, 0, 0) {
            continue;
        }
        drawn.push(Edge {
            from: number(edge.from),
            to: number(edge.to),
            port: edge.port,
            mtls: edge.mtls,
            plaintext,
            refused: edge.refused,
            last_seen: edge.last_seen,
            is_exception: false,
        });
    }
    (nodes, drawn)
}

/// STRICT or DISABLE if all ports of the workload are, otherwise PERMISSIVE.
fn mode_of(replicas: &[&[PortMode]]) -> Option<Mode> {
    let mut modes = replicas.iter().copied().flatten().map(|port| port.mode);
    let first = modes.next()?;
    Some(if modes.all(|mode| mode == first) { first } else { Mode::Permissive })
}

/// Whether all sidecars of the workload say that the port is STRICT.
fn is_strict(replicas: &[&[PortMode]], port: u16) -> bool {
    let of = |ports: &&[PortMode]| {
        let named = ports.iter().find(|mode| mode.port == Some(port));
        named.or_else(|| ports.iter().find(|mode| mode.port.is_none())).map(|mode| mode.mode)
    };
    !replicas.is_empty() && replicas.iter().all(|ports| of(ports) == Some(Mode::Strict))
}

fn workload(name: &WorkloadName) -> String {
    format!("{}.{}", name.name, name.namespace)
}

fn location(by: &portcullis_api::DecidingPolicy) -> String {
    match (&by.file, by.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        _ => String::new(),
    }
}

fn port(seen: &readiness::Port, now: Timestamp) -> Port {
    // The first one admits most, if the sidecars of a workload differ.
    let mode = seen.modes.first().cloned().unwrap_or_default();
    // What it let through before it became STRICT is over.
    let other = if is_open(seen) { seen.other_connections } else { 0 };
    let all = seen.mtls_connections.saturating_add(other);
    let percent = u128::from(seen.mtls_connections) * 100 / u128::from(all.max(1));
    Port {
        workload: workload(&seen.workload),
        port: Some(seen.port),
        mode: mode.mode,
        decided_by: mode.decided_by.label(),
        location: location(&mode.decided_by),
        mtls_percent: u64::try_from(percent).ok().filter(|_| all > 0),
        verdict: match seen.verdict {
            readiness::PortReadiness::Enforced => PortStatus::Strict,
            readiness::PortReadiness::Ready => PortStatus::Ready,
            readiness::PortReadiness::NotReady => PortStatus::NotReady,
            readiness::PortReadiness::NoData => PortStatus::NoData,
            readiness::PortReadiness::Exception => PortStatus::Exception,
        },
        observed_seconds: seen.observed_seconds,
        exception: seen.exception.as_ref().map(|it| it.terms(now)),
    }
}

/// The ports that nothing names, if they admit more than mTLS.
fn other_ports(sidecar: &Sidecar, now: Timestamp) -> Option<Port> {
    let Observations { proxy, ports, .. } = &sidecar.observations;
    let other = ports.iter().find(|port| port.port.is_none() && port.mode != Mode::Strict)?;
    let PortMode { mode, decided_by, .. } = other;
    let exception = readiness::Exception::of(std::slice::from_ref(other), now).map(|it| it.terms(now));
    Some(Port {
        workload: format!("{}.{}", proxy.name, proxy.namespace),
        port: None,
        mode: *mode,
        decided_by: decided_by.label(),
        location: location(decided_by),
        mtls_percent: None,
        verdict: if exception.is_some() { PortStatus::Exception } else { PortStatus::NoData },
        observed_seconds: 0,
        exception,
    })
}

/// Whether it lets through more than mTLS.
fn is_open(port: &readiness::Port) -> bool {
    port.verdict != readiness::PortReadiness::Enforced
}

fn plaintext(port: &readiness::Port, now: Timestamp) -> impl Iterator<Item = PlaintextClient> + '_ {
    port.clients.iter().map(move |client| {
        let has_sidecar_now = client.what == readiness::What::SidecarNow;
        let address = client.addresses.first().map(ToString::to_string);
        let what = match client.what {
            readiness::What::SidecarNow => {
                "it has a sidecar now: the port is ready once this is older than the window of readiness"
            }
            readiness::What::NoSidecar => "it has no sidecar: give it one",
            what => what.as_str(),
        };
        let fix = client.fixes.first().map(|fix| match &fix.paste {
            // Says already what the client is.
            Paste::Command(command) => format!("{}: {command}", fix.what),
            Paste::Yaml(_) => format!("{what}; {}. YAML: portcullis readiness", fix.what),
        });
        let exception =
            port.exception.as_ref().map(|it| format!("exception {}: {}; {}", it.policy, it.reason, it.terms(now)));
        PlaintextClient {
            address: address.filter(|address| *address != client.client),
            name: client.client.clone(),
            has_sidecar_now,
            to: format!("{}:{}", port.workload.name, port.port),
            transport: if client.transport == Transport::Tls { "tls" } else { "plaintext" },
            connections: client.connections,
            last_seen: client.last_seen,
            is_exception: exception.is_some(),
            fix: exception.or(fix).unwrap_or_else(|| what.to_owned()),
        }
    })
}

/// Refused connections that are in memory, those with the same parties and reason as one.
fn refused(answered: &[&Sidecar], names: &Names) -> Vec<Refused> {
    let observations: Vec<&Observations> = answered.iter().map(|sidecar| &sidecar.observations).collect();
    let book = AddressBook::new(&observations, names);
    let client = |source: &str, at: Timestamp| match source.parse::<SocketAddr>() {
        Ok(address) => book.name(address.ip(), at),
        Err(_) => source.to_owned(),
    };
    let mut all: BTreeMap<(String, String, String, String), Refused> = BTreeMap::new();
    for Recent { proxy, connections, .. } in answered.iter().map(|sidecar| &sidecar.recent) {
        for ended in connections.iter().filter(|ended| ended.decision == "deny") {
            let own = match ended.port {
                Some(port) => format!("{}:{port}", proxy.name),
                None => proxy.name.clone(),
            };
            let (from, to) = match ended.direction {
                portcullis_api::Direction::Inbound => {
                    (ended.peer.clone().unwrap_or_else(|| client(&ended.source, ended.ended_at)), own)
                }
                portcullis_api::Direction::Outbound => {
                    let server = ended.service.clone().or_else(|| ended.destination.clone());
                    (proxy.name.clone(), server.unwrap_or_else(|| "unknown".to_owned()))
                }
            };
            // What a caller is refused depends on the answers of others, whatever policy its workload has.
            let is_by_policy = ended.policy != "-"
                && ended.direction == portcullis_api::Direction::Inbound
                && !NOT_BY_POLICY.contains(&ended.reason.as_str());
            let policy = if is_by_policy { ended.policy.clone() } else { String::new() };
            let key = (from.clone(), to.clone(), ended.reason.clone(), policy.clone());
            let one = all.entry(key).or_insert_with(|| Refused {
                at: ended.ended_at,
                from,
                to,
                reason: ended.reason.clone(),
                policy,
                hint: ended.hint.clone(),
                count: 0,
            });
            one.at = one.at.max(ended.ended_at);
            one.count = one.count.saturating_add(1);
        }
    }
    let mut all: Vec<Refused> = all.into_values().collect();
    all.sort_by_key(|refused| std::cmp::Reverse(refused.at));
    all
}

/// The ports that break-glass opens: one line for each document and workload.
fn break_glass(answered: &[&Sidecar], now: Timestamp) -> Vec<String> {
    let mut open: BTreeMap<(String, String), BTreeSet<Option<u16>>> = BTreeMap::new();
    for Observations { proxy, ports, .. } in answered.iter().map(|sidecar| &sidecar.observations) {
        for PortMode { port, decided_by, .. } in ports.iter().filter(|port| port.decided_by.scope == BREAK_GLASS) {
            let left = decided_by
                .expires_at
                .map_or_else(String::new, |end| format!(" for another {}", length(end.seconds_since(now))));
            let why = [&decided_by.reason, &decided_by.owner].into_iter().flatten().map(String::as_str);
            let why = why.collect::<Vec<_>>().join(", ");
            let why = if why.is_empty() { why } else { format!(" ({why})") };
            let key = (format!("{}.{}", proxy.name, proxy.namespace), format!("{left}{why}"));
            open.entry(key).or_default().insert(*port);
        }
    }
    let line = |((workload, terms), ports): ((String, String), BTreeSet<Option<u16>>)| {
        // The rest of the ports says that it is the whole workload.
        let ports = if ports.contains(&None) {
            String::new()
        } else {
            let numbers: Vec<String> = ports.into_iter().flatten().map(|port| port.to_string()).collect();
            format!(":{}", numbers.join(","))
        };
        format!("{workload}{ports}{terms}")
    };
    open.into_iter().map(line).collect()
}

fn changes(sidecar: &Sidecar) -> impl Iterator<Item = Change> + '_ {
    let Changes { proxy, changes } = &sidecar.changes;
    let workload = format!("{}.{}", proxy.name, proxy.namespace);
    changes.iter().map(move |change| Change { at: change.at, workload: workload.clone(), what: change.what.clone() })
}

#[cfg(test)]
mod tests {
    use portcullis_api::{Client, DecidingPolicy, Direction, Observation, ProxyInfo};

    use super::*;
    use crate::view::Lock;

    const NOW: i64 = 1_000_000;
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

    fn seen(transport: Transport, identity: Option<&str>, address: &str, age: i64) -> Observation {
        Observation {
            direction: Direction::Inbound,
            port: 8080,
            transport,
            peer: Client { identity: identity.map(str::to_owned), address: address.parse().ok(), ..Client::default() },
            allowed: 4,
            refused: 0,
            bytes_received: 0,
            bytes_sent: 0,
            first_seen: Timestamp::from_unix(NOW - age),
            last_seen: Timestamp::from_unix(NOW - age),
            last_refusal: None,
            days: Vec::new(),
        }
    }

    fn pay(mode: Mode, plaintext_age: i64) -> View {
        let port = |port| PortMode { port, mode, decided_by: DecidingPolicy::default(), server_first: false };
        let proxy = ProxyInfo {
            name: "pay".to_owned(),
            namespace: "shop".to_owned(),
            identity: "spiffe://cluster.local/ns/shop/sa/pay".to_owned(),
            now: Timestamp::from_unix(NOW),
            ..ProxyInfo::default()
        };
        let observations = Observations {
            proxy,
            observed_seconds: 7 * 86_400,
            is_persistent: true,
            ports: vec![port(Some(8080)), port(None)],
            observations: vec![
                seen(Transport::Mtls, Some(WEB), "10.0.0.2", 5),
                seen(Transport::Plaintext, None, "10.0.0.9", plaintext_age),
            ],
            ..Observations::default()
        };
        let sidecar = Sidecar { observations, ..Sidecar::default() };
        let sidecars = [("pay".to_owned(), Ok(sidecar)), ("cart".to_owned(), Err("refused".to_owned()))];
        view("mesh".to_owned(), &sidecars, &Names::default(), Timestamp::from_unix(NOW))
    }

    #[test]
    fn a_plaintext_client_is_an_open_edge_and_is_named() {
        let view = pay(Mode::Permissive, 30);
        assert_eq!((view.asked, view.answered, view.unreachable.len()), (2, 1, 1));
        let mut locks: Vec<_> =
            view.edges.iter().map(|edge| (view.nodes[edge.from].name.as_str(), edge.lock())).collect();
        locks.sort_by_key(|(name, _)| *name);
        assert_eq!(locks, [("10.0.0.9", Some(Lock::Open)), ("web", Some(Lock::Closed))]);
        assert_eq!((view.plaintext[0].name.as_str(), view.plaintext[0].to.as_str()), ("10.0.0.9", "pay:8080"));
        let verdicts: Vec<_> = view.ports.iter().map(|port| (port.port, port.verdict)).collect();
        assert_eq!(verdicts, [(Some(8080), PortStatus::NotReady), (None, PortStatus::NoData)]);
    }

    #[test]
    fn a_client_that_has_stopped_leaves_the_graph_after_an_hour_but_not_readiness() {
        let view = pay(Mode::Permissive, 3_601);
        assert!(view.edges.iter().all(|edge| edge.lock() == Some(Lock::Closed)));
        assert_eq!((view.plaintext.len(), view.ports[0].verdict), (1, PortStatus::NotReady));
    }

    #[test]
    fn an_open_break_glass_is_on_the_page() {
        let by = DecidingPolicy {
            scope: "break-glass".to_owned(),
            reason: Some("import fails".to_owned()),
            owner: Some("ops".to_owned()),
            expires_at: Some(Timestamp::from_unix(NOW + 840)),
            ..DecidingPolicy::default()
        };
        let port = |port| PortMode { port, mode: Mode::Permissive, decided_by: by.clone(), server_first: false };
        let mut sidecar = Sidecar::default();
        (sidecar.observations.proxy.name, sidecar.observations.proxy.namespace) = ("pay".to_owned(), "shop".to_owned());
        sidecar.observations.ports = vec![port(Some(8080)), PortMode { port: None, ..PortMode::default() }];
        let now = Timestamp::from_unix(NOW);
        let view = view("mesh".to_owned(), &[("pay".to_owned(), Ok(sidecar))], &Names::default(), now);
        assert_eq!(view.break_glass, ["pay.shop:8080 for another 14m (import fails, ops)"]);
        let text = crate::fragment(&view);
        assert!(text.contains("Break-glass lets plaintext in at pay.shop:8080 for another 14m"), "{text}");
    }

    #[test]
    fn refusals_and_failures_and_exceptions_are_told_apart() {
        let mut view = pay(Mode::Permissive, 30);
        assert!(view.edges.iter().all(|edge| !edge.is_exception));
        let refused = |policy: &str| Refused {
            at: Timestamp::from_unix(NOW),
            from: "cron".to_owned(),
            to: "pay:8080".to_owned(),
            reason: "x".to_owned(),
            policy: policy.to_owned(),
            hint: String::new(),
            count: 1,
        };
        view.refused = vec![refused("shop/default")];
        let sections = |view: &View| {
            let page = crate::fragment(view);
            ["Refused connections", "Failed connections", "seen for 7d"].map(|text| page.contains(text))
        };
        assert_eq!(sections(&view), [true, false, false]);
        view.refused = vec![refused("")];
        view.ports[0].verdict = PortStatus::Ready;
        assert_eq!(sections(&view), [false, true, true]);
    }

    #[test]
    fn what_a_strict_port_let_through_before_is_over() {
        let view = pay(Mode::Strict, 30);
        // Its client is not on the graph either: nothing of it was let through or refused since.
        assert!(view.edges.iter().all(|edge| edge.lock() == Some(Lock::Closed)) && view.plaintext.is_empty());
        assert!(view.nodes.iter().all(|node| node.is_meshed));
        assert_eq!((view.ports.len(), view.ports[0].verdict), (1, PortStatus::Strict));
        assert_eq!(view.ports[0].mtls_percent, Some(100));
    }
}
