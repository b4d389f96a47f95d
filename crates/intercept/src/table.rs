//! The model of a table of rules, and its text: exactly what `nft list table` prints of it.

use std::fmt;

use portcullis_config::Cidr;

use crate::port::{Interface, Port};

/// A table of the family `inet`, which holds for IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name; no other program's table may have it.
    pub name: &'static str,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// A chain that the kernel calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// When it is called.
    pub hook: Hook,
    /// The first rule that matches and has a verdict decides; else the packet goes on.
    pub rules: Vec<Rule>,
}

/// When a chain is called, and what it may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// NAT of incoming packets, before the routing decision.
    NatPrerouting,
    /// Translates what a process of this host sends.
    NatOutput,
    /// Filters packets for this host.
    FilterInput,
    /// Filters what a process of this host sends.
    FilterOutput,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// All of them must match.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// The packet is TCP.
    Tcp,
    /// TCP to this port.
    TcpPort(Port),
    /// UDP to this port.
    UdpPort(Port),
    /// The socket that sent it belongs to this user.
    Uid(u32),
    /// The incoming interface.
    From(Interface),
    /// The outgoing interface.
    To(Interface),
    /// Its source is in this range.
    Source(Cidr),
    /// Its destination is in this range.
    Destination(Cidr),
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The chain ends here; the packet continues unchanged.
    Return,
    /// The packet is dropped.
    Drop,
    /// The connection is redirected to this port of this host.
    Redirect(Port),
}

impl Hook {
    /// The kernel's type of the chain.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::NatPrerouting | Self::NatOutput => "nat",
            Self::FilterInput | Self::FilterOutput => "filter",
        }
    }

    /// Where the chain stands among others of its hook: right before destination NAT, where the first chain that translates a
    /// connection wins, so that ours does; that of a filter.
    pub(crate) const fn priority(self) -> i32 {
        match self {
            Self::NatPrerouting | Self::NatOutput => -101,
            Self::FilterInput | Self::FilterOutput => 0,
        }
    }

    /// The kernel's number: `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`, `NF_INET_LOCAL_OUT`.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::NatPrerouting => 0,
            Self::FilterInput => 1,
            Self::NatOutput | Self::FilterOutput => 3,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NatPrerouting => "type nat hook prerouting priority dstnat - 1; policy accept;",
            Self::NatOutput => "type nat hook output priority -101; policy accept;",
            Self::FilterInput => "type filter hook input priority filter; policy accept;",
            Self::FilterOutput => "type filter hook output priority filter; policy accept;",
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for (index, chain) in self.chains.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "\tchain {} {{\n\t\t{}", chain.name, chain.hook)?;
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        self.verdict.fmt(f)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::TcpPort(port) => write!(f, "tcp dport {port}"),
            Self::UdpPort(port) => write!(f, "udp dport {port}"),
            Self::Uid(uid) => write!(f, "meta skuid {uid}"),
            Self::From(interface) => write!(f, "iifname \"{}\"", interface.as_str()),
            Self::To(interface) => write!(f, "oifname \"{}\"", interface.as_str()),
            Self::Source(range) => address(f, "saddr", range),
            Self::Destination(range) => address(f, "daddr", range),
        }
    }
}

/// A range of one address is written without its length; one of all addresses is any packet of that family.
fn address(f: &mut fmt::Formatter<'_>, side: &str, range: &Cidr) -> fmt::Result {
    let (family, protocol, width) = if range.network().is_ipv4() { ("ip", "ipv4", 32) } else { ("ip6", "ipv6", 128) };
    match range.prefix() {
        0 => write!(f, "meta nfproto {protocol}"),
        prefix if prefix == width => write!(f, "{family} {side} {}", range.network()),
        _ => write!(f, "{family} {side} {range}"),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return => f.write_str("return"),
            Self::Drop => f.write_str("drop"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
        }
    }
}
