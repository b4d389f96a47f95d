//! The networks that this workload is attached to, by what the kernel says at the start: the sandbox keeps `/proc/net` closed afterwards.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use portcullis_config::Cidr;

const LOOPBACK: &str = "lo";

/// Without loopback; none if the kernel does not say it. Then nothing is warned of, and nothing else depends on it.
pub(super) fn own_networks() -> Vec<Cidr> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    [ipv4(&read("/proc/self/net/route")), ipv6(&read("/proc/self/net/if_inet6"))].concat()
}

/// Of the routing table: destinations that are reached without a gateway. Numbers are hexadecimal, in network order as the machine reads
/// it.
fn ipv4(table: &str) -> Vec<Cidr> {
    let number =
        |text: Option<&&str>| u32::from_str_radix(text?, 16).ok().map(|raw| u32::from_be_bytes(raw.to_ne_bytes()));
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (destination, gateway) = (number(fields.get(1))?, number(fields.get(2))?);
        let mask = number(fields.get(7))?;
        let is_own = *fields.first()? != LOOPBACK && gateway == 0 && mask != 0;
        Cidr::parse(&format!("{}/{}", Ipv4Addr::from(destination), mask.count_ones())).filter(|_| is_own)
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// Of the addresses and their prefixes.
fn ipv6(addresses: &str) -> Vec<Cidr> {
    let network = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = Ipv6Addr::from(u128::from_str_radix(fields.first()?, 16).ok()?);
        let prefix = u8::from_str_radix(fields.get(2)?, 16).ok()?;
        // A range of one is an own address.
        let is_own = *fields.get(5)? != LOOPBACK && prefix < 128;
        Cidr::parse_lenient(&format!("{address}/{prefix}")).filter(|_| is_own)
    };
    addresses.lines().filter_map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_without_a_gateway_are_own_and_loopback_is_not() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                     lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
                     eth1\t0000000A\t010012AC\t0003\t0\t0\t0\t000000FF\t0\t0\t0\n";
        let addresses = "00000000000000000000000000000001 01 80 10 80       lo\n\
                         fd000000000000000000000000000002 0a 40 00 80     eth0\n";
        // As a little-endian machine writes it.
        if cfg!(target_endian = "little") {
            assert_eq!(ipv4(table), ["172.18.0.0/16".parse().unwrap()]);
        }
        assert_eq!(ipv6(addresses), ["fd00::/64".parse().unwrap()]);
        assert!(ipv4("").is_empty() && ipv4("x\ny\n").is_empty() && ipv6("x y z\n").is_empty());
    }
}
