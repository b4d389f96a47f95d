//! The kernel's form of a rule: a list of expressions over registers. Numbers: `linux/netfilter/nf_tables.h`.

use std::net::IpAddr;

use portcullis_config::Cidr;

use crate::attributes::Attribute;
use crate::port::{Interface, Port};
use crate::table::{Match, Rule, Verdict};

/// `NFTA_LIST_ELEM`.
const ELEMENT: u16 = 1;
/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const CODE: u16 = 1;
/// `NFT_REG_VERDICT`, `NFT_REG_1`.
const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
/// `NFT_META_IIFNAME`, `..OIFNAME`, `..SKUID`, `..NFPROTO`, `..L4PROTO`.
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_SKUID: u32 = 10;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `IPPROTO_TCP`, `IPPROTO_UDP`.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// Of the destination port, in TCP as in UDP.
const DESTINATION_PORT: u32 = 2;
/// `NF_DROP`, `NFT_RETURN`.
const CODE_DROP: i32 = 0;
const CODE_RETURN: i32 = -5;

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// The content of `NFTA_RULE_EXPRESSIONS`.
pub(crate) fn of(rule: &Rule) -> Vec<Attribute> {
    let mut steps: Vec<Attribute> = rule.matches.iter().flat_map(condition).collect();
    steps.extend(verdict(rule.verdict));
    steps
}

fn condition(condition: &Match) -> Vec<Attribute> {
    match condition {
        Match::Tcp => protocol(TCP),
        Match::TcpPort(port) => destination_port(TCP, *port),
        Match::UdpPort(port) => destination_port(UDP, *port),
        // Registers are compared byte by byte, and this value is in the byte order of the host.
        Match::Uid(uid) => vec![meta(META_SKUID), compare(&uid.to_ne_bytes())],
        Match::From(interface) => vec![meta(META_IIFNAME), compare(&name(interface))],
        Match::To(interface) => vec![meta(META_OIFNAME), compare(&name(interface))],
        Match::Source(range) => address(range, Side::Source),
        Match::Destination(range) => address(range, Side::Destination),
    }
}

fn verdict(verdict: Verdict) -> Vec<Attribute> {
    match verdict {
        Verdict::Return => vec![immediate_verdict(CODE_RETURN)],
        Verdict::Drop => vec![immediate_verdict(CODE_DROP)],
        Verdict::Redirect(port) => vec![
            // NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA
            step("immediate", [Attribute::number(1, REGISTER), Attribute::nested(2, [raw(&port.get().to_be_bytes())])]),
            // NFTA_REDIR_REG_PROTO_MIN
            step("redir", [Attribute::number(1, REGISTER)]),
        ],
    }
}

fn protocol(protocol: u8) -> Vec<Attribute> {
    vec![meta(META_L4PROTO), compare(&[protocol])]
}

fn destination_port(transport: u8, port: Port) -> Vec<Attribute> {
    let mut steps = protocol(transport);
    steps.push(payload(TRANSPORT, DESTINATION_PORT, 2));
    steps.push(compare(&port.get().to_be_bytes()));
    steps
}

/// A table of the family `inet` sees both versions of IP, so the version of the range is matched first.
fn address(range: &Cidr, side: Side) -> Vec<Attribute> {
    let (version, network, offset): (_, Vec<u8>, _) = match (range.network(), side) {
        (IpAddr::V4(v4), Side::Source) => (IPV4, v4.octets().into(), 12),
        (IpAddr::V4(v4), Side::Destination) => (IPV4, v4.octets().into(), 16),
        (IpAddr::V6(v6), Side::Source) => (IPV6, v6.octets().into(), 8),
        (IpAddr::V6(v6), Side::Destination) => (IPV6, v6.octets().into(), 24),
    };
    let mut steps = vec![meta(META_NFPROTO), compare(&[version])];
    if range.prefix() == 0 {
        return steps;
    }
    let (length, mask) = (if version == IPV4 { 4 } else { 16 }, mask(range.prefix(), network.len()));
    steps.push(payload(NETWORK, offset, length));
    if mask.iter().any(|byte| *byte != u8::MAX) {
        steps.push(masked(&mask));
    }
    steps.push(compare(&network));
    steps
}

/// As many bits as the prefix is long, from the left.
fn mask(prefix: u8, bytes: usize) -> Vec<u8> {
    let left = |byte: usize| usize::from(prefix).saturating_sub(8 * byte).min(8);
    (0..bytes).map(|byte| u8::try_from(0xff00_u16 >> left(byte) & 0xff).unwrap_or(u8::MAX)).collect()
}

fn step(name: &str, data: impl Into<Vec<Attribute>>) -> Attribute {
    Attribute::nested(ELEMENT, [Attribute::text(NAME, name), Attribute::nested(DATA, data)])
}

/// `NFTA_META_DREG`, `NFTA_META_KEY`.
fn meta(key: u32) -> Attribute {
    step("meta", [Attribute::number(1, REGISTER), Attribute::number(2, key)])
}

/// `NFTA_PAYLOAD_DREG`, `..BASE`, `..OFFSET`, `..LEN`.
fn payload(base: u32, offset: u32, length: u32) -> Attribute {
    let numbers = [(1, REGISTER), (2, base), (3, offset), (4, length)];
    step("payload", numbers.map(|(kind, number)| Attribute::number(kind, number)))
}

/// `NFTA_BITWISE_SREG`, `..DREG`, `..LEN`, `..MASK`, `..XOR`.
fn masked(mask: &[u8]) -> Attribute {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    step(
        "bitwise",
        [
            Attribute::number(1, REGISTER),
            Attribute::number(2, REGISTER),
            Attribute::number(3, length),
            Attribute::nested(4, [raw(mask)]),
            Attribute::nested(5, [raw(&vec![0; mask.len()])]),
        ],
    )
}

/// `NFTA_CMP_SREG`, `..OP`, `..DATA`; the operation is `NFT_CMP_EQ`.
fn compare(value: &[u8]) -> Attribute {
    step("cmp", [Attribute::number(1, REGISTER), Attribute::number(2, 0), Attribute::nested(3, [raw(value)])])
}

fn immediate_verdict(code: i32) -> Attribute {
    let verdict = Attribute::nested(VERDICT, [Attribute::bytes(CODE, &code.to_be_bytes())]);
    step("immediate", [Attribute::number(1, REGISTER_VERDICT), Attribute::nested(2, [verdict])])
}

fn raw(value: &[u8]) -> Attribute {
    Attribute::bytes(VALUE, value)
}

/// Padded with zeros to the whole field, since that is what is compared.
fn name(interface: &Interface) -> [u8; Interface::SIZE] {
    let mut padded = [0; Interface::SIZE];
    for (place, byte) in padded.iter_mut().zip(interface.as_str().bytes()) {
        *place = byte;
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_as_many_bits_as_the_prefix() {
        assert_eq!(mask(0, 4), [0, 0, 0, 0]);
        assert_eq!(mask(8, 4), [255, 0, 0, 0]);
        assert_eq!(mask(12, 4), [255, 240, 0, 0]);
        assert_eq!(mask(31, 4), [255, 255, 255, 254]);
        assert_eq!(mask(32, 4), [255, 255, 255, 255]);
        for prefix in 0..=128 {
            let bits: u32 = mask(prefix, 16).iter().map(|byte| byte.leading_ones()).sum();
            assert_eq!(bits, u32::from(prefix));
        }
    }

    #[test]
    fn an_interface_fills_its_field() {
        assert_eq!(name(&"lo".parse().unwrap()), *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }
}
