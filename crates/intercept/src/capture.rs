//! The capture settings, in Istio's terms, and the rules for them. Pure: nothing is installed here.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;

use portcullis_config::{Cidr, Settings};

use crate::parse::list;
use crate::port::{Interface, Port};
use crate::table::{Chain, Hook, Match, Rule, Table, Verdict};

/// The name of our table: the only thing in the kernel that we make, change or remove.
pub(crate) const TABLE: &str = "portcullis";

/// Which connections are redirected to the sidecar.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The sidecar's user: what it sends is not captured. Istio: `--proxy-uid`.
    pub proxy_uid: u32,
    /// Connections to this host, if they are captured.
    pub inbound: Option<Inbound>,
    /// Connections that processes of this host open, if they are captured.
    pub outbound: Option<Outbound>,
    /// Connections over these interfaces are not captured. Istio: `traffic.sidecar.istio.io/excludeInterfaces`.
    pub exclude_interfaces: Vec<Interface>,
    /// UDP to these ports of this host is dropped, since no mode protects it.
    pub drop_inbound_udp: Vec<Port>,
    /// UDP that this host sends to these ports is dropped, unless the sidecar sends it.
    pub drop_outbound_udp: Vec<Port>,
}

/// Inbound capture. Exclusion wins over inclusion.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Where the sidecar listens. Istio: `--inbound-capture-port`, 15006.
    pub port: Port,
    /// Istio: `traffic.sidecar.istio.io/includeInboundPorts`.
    pub include_ports: Selection<Port>,
    /// Istio: `traffic.sidecar.istio.io/excludeInboundPorts`.
    pub exclude_ports: Vec<Port>,
    /// Clients whose connections are captured.
    pub include_ranges: Selection<Cidr>,
    /// Clients whose connections bypass the sidecar and its policy.
    pub exclude_ranges: Vec<Cidr>,
}

/// Outbound capture. Exclusion wins over inclusion.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Where the sidecar listens. Istio: `--envoy-port`, 15001.
    pub port: Port,
    /// Destinations that are captured. Istio: `traffic.sidecar.istio.io/includeOutboundIPRanges`.
    pub include_ranges: Selection<Cidr>,
    /// Istio: `traffic.sidecar.istio.io/excludeOutboundIPRanges`.
    pub exclude_ranges: Vec<Cidr>,
    /// Captured whatever their address. Istio: `traffic.sidecar.istio.io/includeOutboundPorts`.
    pub include_ports: Vec<Port>,
    /// Istio: `traffic.sidecar.istio.io/excludeOutboundPorts`.
    pub exclude_ports: Vec<Port>,
}

/// All of something, or some.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection<T> {
    /// Written `*`.
    All,
    /// Written as a list; an empty one selects nothing.
    Only(Vec<T>),
}

impl<T: FromStr> FromStr for Selection<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text.trim() == "*" { Ok(Self::All) } else { list(text).map(Self::Only) }
    }
}

impl Capture {
    /// The user that Istio's sidecars, and our image, run as.
    pub const PROXY_UID: u32 = 1337;
    /// Istio's ports of the transparent listeners.
    pub const INBOUND_PORT: u16 = 15006;
    /// See [`INBOUND_PORT`](Self::INBOUND_PORT).
    pub const OUTBOUND_PORT: u16 = 15001;
    /// Ports for health checks and metrics, which come in plaintext from outside the mesh. Istio's: health, merged metrics,
    /// own metrics.
    pub const OPEN_PORTS: [u16; 3] = [15020, 15021, 15090];

    /// The capture of an Istio sidecar: everything in both directions except health checks and metrics.
    #[must_use]
    pub fn istio() -> Self {
        Self::new(Some(Self::INBOUND_PORT), Some(Self::OUTBOUND_PORT), &Self::OPEN_PORTS)
    }

    /// The capture for these settings: the directions that have a transparent listener. The sidecar's own ports that other
    /// hosts connect to are excluded; those on loopback cannot be reached from outside anyway.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let open: Vec<u16> = [settings.health, settings.metrics]
            .into_iter()
            .flatten()
            .chain(settings.inbound.ports.iter().map(|port| port.listen))
            .chain(settings.inbound.hbone)
            .chain(settings.gateway.listeners.iter().map(|listener| listener.listen))
            .filter(|listen| !listen.ip().is_loopback())
            .map(|listen| listen.port())
            .collect();
        let port = |listen: Option<SocketAddr>| listen.map(|listen| listen.port());
        Self::new(port(settings.inbound.transparent), port(settings.outbound.transparent), &open)
    }

    fn new(inbound: Option<u16>, outbound: Option<u16>, open: &[u16]) -> Self {
        Self {
            proxy_uid: Self::PROXY_UID,
            inbound: inbound.and_then(Port::new).map(|port| Inbound {
                port,
                include_ports: Selection::All,
                exclude_ports: open.iter().copied().filter_map(Port::new).collect(),
                include_ranges: Selection::All,
                exclude_ranges: Vec::new(),
            }),
            outbound: outbound.and_then(Port::new).map(|port| Outbound {
                port,
                include_ranges: Selection::All,
                exclude_ranges: Vec::new(),
                include_ports: Vec::new(),
                exclude_ports: Vec::new(),
            }),
            exclude_interfaces: Vec::new(),
            drop_inbound_udp: Vec::new(),
            drop_outbound_udp: Vec::new(),
        }
    }

    /// The rules.
    #[must_use]
    pub fn table(&self) -> Table {
        let chains = [self.inbound(), self.outbound(), self.inbound_udp(), self.outbound_udp()];
        Table { name: TABLE, chains: chains.into_iter().flatten().collect() }
    }

    fn inbound(&self) -> Option<Chain> {
        let Inbound { port, include_ports, exclude_ports, include_ranges, exclude_ranges } = self.inbound.as_ref()?;
        let mut rules = Rules::default();
        // Connections of this host to itself have passed the outbound chain already; the kernel translates them once.
        rules.each_returns(&self.exclude_interfaces, Match::From);
        rules.each_returns(exclude_ports, Match::TcpPort);
        rules.each_returns(exclude_ranges, Match::Source);
        let ports = match include_ports {
            Selection::All => vec![Match::Tcp],
            Selection::Only(ports) => ports.iter().copied().map(Match::TcpPort).collect(),
        };
        for condition in ports {
            match include_ranges {
                Selection::All => rules.add([condition], Verdict::Redirect(*port)),
                Selection::Only(ranges) => {
                    for range in ranges {
                        rules.add([Match::Source(*range), condition.clone()], Verdict::Redirect(*port));
                    }
                }
            }
        }
        Some(Chain { name: "inbound", hook: Hook::NatPrerouting, rules: rules.0 })
    }

    fn outbound(&self) -> Option<Chain> {
        let Outbound { port, include_ranges, exclude_ranges, include_ports, exclude_ports } = self.outbound.as_ref()?;
        let redirect = Verdict::Redirect(*port);
        let mut rules = Rules::default();
        rules.add([Match::Uid(self.proxy_uid)], Verdict::Return);
        // Loopback, which is where Docker's DNS is as well, and this host's own addresses, which go through it.
        rules.add([Match::To(Interface::loopback())], Verdict::Return);
        rules.each_returns(&self.exclude_interfaces, Match::To);
        rules.each_returns(exclude_ports, Match::TcpPort);
        rules.each_returns(exclude_ranges, Match::Destination);
        match include_ranges {
            Selection::All => rules.add([Match::Tcp], redirect),
            Selection::Only(ranges) => {
                for port in include_ports {
                    rules.add([Match::TcpPort(*port)], redirect);
                }
                for range in ranges {
                    rules.add([Match::Destination(*range), Match::Tcp], redirect);
                }
            }
        }
        Some(Chain { name: "outbound", hook: Hook::NatOutput, rules: rules.0 })
    }

    fn inbound_udp(&self) -> Option<Chain> {
        let mut rules = Rules::default();
        rules.add([Match::From(Interface::loopback())], Verdict::Return);
        rules.drop_udp(&self.drop_inbound_udp)?;
        Some(Chain { name: "inbound_udp", hook: Hook::FilterInput, rules: rules.0 })
    }

    fn outbound_udp(&self) -> Option<Chain> {
        let mut rules = Rules::default();
        rules.add([Match::Uid(self.proxy_uid)], Verdict::Return);
        rules.add([Match::To(Interface::loopback())], Verdict::Return);
        rules.drop_udp(&self.drop_outbound_udp)?;
        Some(Chain { name: "outbound_udp", hook: Hook::FilterOutput, rules: rules.0 })
    }
}

#[derive(Default)]
struct Rules(Vec<Rule>);

impl Rules {
    fn add(&mut self, matches: impl Into<Vec<Match>>, verdict: Verdict) {
        let rule = Rule { matches: matches.into(), verdict };
        // A port may be excluded by the settings and on the command line.
        if !self.0.contains(&rule) {
            self.0.push(rule);
        }
    }

    fn each_returns<T: Clone>(&mut self, each: &[T], condition: impl Fn(T) -> Match) {
        for one in each {
            self.add([condition(one.clone())], Verdict::Return);
        }
    }

    /// `None` if there is nothing to drop.
    fn drop_udp(&mut self, ports: &[Port]) -> Option<()> {
        for port in ports {
            self.add([Match::UdpPort(*port)], Verdict::Drop);
        }
        (!ports.is_empty()).then_some(())
    }
}

impl<T: Display> Display for Selection<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Only(some) => {
                for (index, one) in some.iter().enumerate() {
                    write!(f, "{}{one}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
