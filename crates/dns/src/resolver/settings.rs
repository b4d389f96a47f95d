//! What resolv.conf(5) and hosts(5) say.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_resolver::proto::rr::Name;

use crate::error::LookupError;

/// The port of DNS servers.
const DNS_PORT: u16 = 53;
/// The bound of `ndots`, as in glibc.
const MAX_NDOTS: usize = 15;
/// glibc asks no more servers than this.
const MAX_SERVERS: usize = 3;

/// How names are looked up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Settings {
    /// In the order in which they are asked.
    pub(super) servers: Vec<SocketAddr>,
    /// Domains that are appended to names without a trailing dot.
    pub(super) search: Vec<String>,
    /// A name with at least as many dots is tried as it is before the search domains are.
    pub(super) ndots: usize,
    /// Ask for answers of more than 512 bytes over UDP.
    pub(super) edns0: bool,
    /// The hosts file, by names in lower case.
    pub(super) hosts: HashMap<String, Vec<IpAddr>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { servers: Vec::new(), search: Vec::new(), ndots: 1, edns0: false, hosts: HashMap::new() }
    }
}

impl Settings {
    /// Reads both files. As in glibc, lines that it does not know are ignored, the last of `search` and `domain` counts, and
    /// without a server it is this host's own.
    pub(super) fn parse(resolv_conf: &str, hosts: &str) -> Self {
        let mut settings = Self { hosts: parse_hosts(hosts), ..Self::default() };
        for line in resolv_conf.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    settings.servers.extend(server.map(|address| SocketAddr::new(address, DNS_PORT)));
                }
                Some("search") => settings.search = words.map(str::to_owned).collect(),
                Some("domain") => settings.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| settings.option(option)),
                _ => {}
            }
        }
        settings.servers.truncate(MAX_SERVERS);
        if settings.servers.is_empty() {
            settings.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
        }
        settings
    }

    fn option(&mut self, option: &str) {
        if let Some(dots) = option.strip_prefix("ndots:").and_then(|dots| dots.parse::<usize>().ok()) {
            self.ndots = dots.min(MAX_NDOTS);
        }
        self.edns0 |= option == "edns0";
    }

    /// The addresses of the name in the hosts file.
    pub(super) fn host(&self, name: &str) -> Option<&[IpAddr]> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.hosts.get(&name).map(Vec::as_slice)
    }

    /// A name of the address in the hosts file: the first in alphabetical order.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<&str> {
        let has_it = |(_, addresses): &(&String, &Vec<IpAddr>)| addresses.contains(&address);
        self.hosts.iter().filter(has_it).map(|(name, _)| name.as_str()).min()
    }

    /// The full names to ask for, in order.
    pub(super) fn candidates(&self, name: &str) -> Result<Vec<Name>, LookupError> {
        let parse = |full: &str| {
            let parsed = Name::from_ascii(full).map(|mut parsed| {
                parsed.set_fqdn(true);
                parsed
            });
            parsed.map_err(|error| LookupError::NotAName { name: name.to_owned(), why: error.to_string() })
        };
        let own = parse(name)?;
        if own.is_root() {
            return Err(LookupError::NotAName { name: name.to_owned(), why: "it is empty".to_owned() });
        }
        if name.ends_with('.') {
            return Ok(vec![own]);
        }
        // A domain that makes the name too long is left out.
        let mut candidates: Vec<Name> =
            self.search.iter().filter_map(|domain| parse(&format!("{name}.{domain}")).ok()).collect();
        let first = name.matches('.').count() >= self.ndots;
        candidates.insert(if first { 0 } else { candidates.len() }, own);
        Ok(candidates)
    }
}

fn parse_hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(line, _comment)| line);
        let mut words = line.split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        for name in words {
            hosts.entry(name.to_ascii_lowercase()).or_default().push(address);
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(resolv_conf: &str, name: &str) -> Vec<String> {
        let names = Settings::parse(resolv_conf, "").candidates(name).unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_files_are_read_as_glibc_reads_them() {
        let text = "# comment\ndomain old.test\nsearch shop.test corp.test.\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n\
                    nameserver ::1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\noptions ndots:2 edns0 rotate\nbogus line\n";
        let hosts = "127.0.0.1 localhost Cart # cart2\n::1 localhost\nnot-an-address x\n";
        let read = Settings::parse(text, hosts);
        let servers: Vec<_> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "10.0.0.2:53"]);
        assert_eq!(
            (read.search.as_slice(), read.ndots, read.edns0),
            (&["shop.test".into(), "corp.test.".into()][..], 2, true)
        );
        assert_eq!(read.host("LOCALHOST.").map(<[_]>::len), Some(2));
        assert!(read.host("cart").is_some() && read.host("cart2").is_none() && read.host("x").is_none());
        let none = Settings::parse("", "");
        assert_eq!((none.servers, none.ndots), (vec!["127.0.0.1:53".parse().unwrap()], 1));
        assert_eq!(Settings::parse("options ndots:99", "").ndots, 15);
    }

    #[test]
    fn search_domains_follow_the_number_of_dots() {
        let conf = "search a.test b.test\n";
        assert_eq!(candidates(conf, "cart"), ["cart.a.test.", "cart.b.test.", "cart."]);
        assert_eq!(candidates(conf, "cart.shop"), ["cart.shop.", "cart.shop.a.test.", "cart.shop.b.test."]);
        assert_eq!(candidates(conf, "cart."), ["cart."]);
        assert_eq!(candidates(&format!("{conf}options ndots:0\n"), "cart")[0], "cart.");
        assert_eq!(candidates(&format!("{conf}options ndots:5\n"), "a.b.c.d").last().unwrap(), "a.b.c.d.");
        let long = "x".repeat(64);
        for wrong in ["", ".", "a..b", &long, "caf\u{e9}"] {
            assert!(Settings::parse("", "").candidates(wrong).is_err(), "{wrong:?}");
        }
        let longest = vec!["x".repeat(60); 4].join(".");
        assert_eq!(candidates("search a-domain-that-makes-it-too-long.test\n", &longest).len(), 1);
    }
}
