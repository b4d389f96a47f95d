//! An address that is in some ranges and not in others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::authorization::Condition;
use crate::cidr::Cidr;

/// An address for which each condition is as true as it says; `preferred` if it is one.
///
/// What is in the same ranges changes only where a range begins or has just ended, so these addresses are enough.
pub(super) fn address(preferred: IpAddr, literals: &[(&Condition, bool)]) -> Option<IpAddr> {
    let ranges: Vec<(Cidr, bool)> =
        literals.iter().flat_map(|(condition, holds)| range(condition).map(|range| (range, *holds))).collect();
    let ends = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    // The first address of a range is that of a network; the second looks like a host's.
    let within = ranges.iter().flat_map(|(range, _)| [next(range.network()), Some(range.network())]).flatten();
    let behind = ranges.iter().filter_map(|(range, _)| next(last(range)));
    let mut candidates = [preferred].into_iter().chain(within).chain(behind).chain(ends);
    // What is mapped into IPv6 counts as IPv4, so it is no address of the range that seems to hold it.
    candidates.find(|address| {
        *address == address.to_canonical() && ranges.iter().all(|(range, holds)| range.contains(*address) == *holds)
    })
}

fn range(condition: &Condition) -> impl Iterator<Item = Cidr> + '_ {
    let values = match condition {
        Condition::SourceIp(values) | Condition::RemoteIp(values) | Condition::DestinationIp(values) => values.values(),
        _ => &[],
    };
    values.iter().copied()
}

fn last(range: &Cidr) -> IpAddr {
    match range.network() {
        IpAddr::V4(v4) => {
            let host_bits = u32::MAX.checked_shr(range.prefix().into()).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() | host_bits).into()
        }
        IpAddr::V6(v6) => {
            let host_bits = u128::MAX.checked_shr(range.prefix().into()).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() | host_bits).into()
        }
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().checked_add(1)?).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().checked_add(1)?).into(),
    })
}
