//! Finds processes that use a network namespace before its redirect rules are installed: their connections bypass policy.
//!
//! Sockets are listed from `/proc/net`, which needs no privilege. `intercept install` announces the rules over an abstract
//! Unix socket, since these belong to the network namespace, whatever else its processes share.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr as InternetAddr};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use portcullis_intercept::Capture;

const NAME: &[u8] = b"portcullis-rules-installed";
/// `TCP_ESTABLISHED`, `TCP_SYN_SENT`, `TCP_LISTEN`: closed connections do not count.
const ALIVE: [&str; 3] = ["01", "02", "0A"];
/// Without the last one: connections that are open, or being opened, among them those that a listener has not accepted yet.
const OPEN: [&str; 3] = ["01", "02", "03"];
/// `TCP_CLOSE`: a UDP socket without a peer of its own, which receives from everybody.
const BOUND: &str = "07";

/// Where the engine answers for names, in the namespace of each container.
const DOCKER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// A socket whose connections bypass the sidecar.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Uncaptured {
    local: InternetAddr,
    uid: u32,
}

impl fmt::Display for Uncaptured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} has a socket on {}", self.uid, self.local)
    }
}

/// Listens for the announcement that the rules are installed.
///
/// # Errors
/// If another `hold` waits in this namespace already.
pub(crate) fn listen() -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Announces that the rules are installed, if a `hold` waits for them.
pub(crate) fn announce() {
    let _no_listener = SocketAddr::from_abstract_name(NAME).and_then(|name| UnixStream::connect_addr(&name));
}

/// The first TCP socket in this namespace that is neither on loopback nor the sidecar's.
pub(crate) fn find() -> Option<Uncaptured> {
    find_in(&ALIVE)
}

/// The first such connection. One that was opened before the rules is never captured; of a listener, what comes later is.
pub(crate) fn open_connection() -> Option<Uncaptured> {
    find_in(&OPEN)
}

fn find_in(states: &[&str]) -> Option<Uncaptured> {
    // A kernel without IPv6 has no second file.
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|file| first(&fs::read_to_string(file).ok()?, states))
}

fn first(table: &str, states: &[&str]) -> Option<Uncaptured> {
    table
        .lines()
        .skip(1)
        .filter_map(entry)
        .filter(|(_, state)| states.contains(state))
        .map(|(socket, _)| socket)
        .find(|socket| !socket.local.ip().is_loopback() && socket.uid != Capture::PROXY_UID)
}

/// A socket in this namespace, on loopback too, that is neither the sidecar's nor Docker's DNS: the app is here.
pub(crate) fn app() -> Option<Uncaptured> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"];
    tables.iter().find_map(|file| app_of(&fs::read_to_string(file).ok()?))
}

fn app_of(table: &str) -> Option<Uncaptured> {
    let sockets = table.lines().skip(1).filter_map(entry).filter(|(_, state)| *state == BOUND || ALIVE.contains(state));
    let mut sockets = sockets.map(|(socket, _)| socket);
    sockets.find(|socket| socket.local.ip() != DOCKER_DNS && socket.uid != Capture::PROXY_UID)
}

/// The UDP sockets in this namespace that other hosts reach, and that are not the sidecar's: UDP is never captured.
///
/// # Errors
/// If the kernel does not list them.
pub(crate) fn datagrams() -> io::Result<Vec<Uncaptured>> {
    let mut found = datagrams_of(&fs::read_to_string("/proc/net/udp")?);
    // A kernel without IPv6 has no second file.
    found.extend(fs::read_to_string("/proc/net/udp6").iter().flat_map(|table| datagrams_of(table)));
    Ok(found)
}

fn datagrams_of(table: &str) -> Vec<Uncaptured> {
    let bound = table.lines().skip(1).filter_map(entry).filter(|(_, state)| *state == BOUND).map(|(socket, _)| socket);
    bound.filter(|socket| !socket.local.ip().is_loopback() && socket.uid != Capture::PROXY_UID).collect()
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid ...`: the socket and its state.
fn entry(line: &str) -> Option<(Uncaptured, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (local, state) = (words.nth(1)?, words.nth(1)?);
    let uid = words.nth(3)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    let local = InternetAddr::new(address_of(address)?, u16::from_str_radix(port, 16).ok()?);
    Some((Uncaptured { local, uid }, state))
}

/// The kernel writes each 32 bits of an address as a number of the host.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| Some(u32::from_str_radix(hex.get(8 * index..8 * index + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, state: &str, uid: u32) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 1 1 0 100 0 0 10 0\n"
        )
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn only_what_is_alive_and_reached_from_elsewhere_counts_and_the_sidecar_does_not() {
        let found =
            |lines: &[String]| first(&format!("{HEAD}{}", lines.concat()), &ALIVE).map(|socket| socket.to_string());
        let quiet = [
            line("0B00007F:8F11", "0A", 0),                         // Docker's DNS
            line("00000000:3A9E", "0A", 1337),                      // the sidecar
            line("020012AC:1F90", "06", 0),                         // over
            line("0000000000000000FFFF00000100007F:1F90", "0A", 0), // loopback, as IPv6 has it
            line("00000000000000000000000001000000:1F90", "0A", 0),
        ];
        assert_eq!(found(&quiet), None);
        let app = line("00000000000000000000000000000000:1F90", "0A", 1000);
        assert_eq!(found(&[&quiet[..], &[app]].concat()).unwrap(), "user 1000 has a socket on [::]:8080");
        assert_eq!(found(&[line("020012AC:A001", "02", 0)]).unwrap(), "user 0 has a socket on 172.18.0.2:40961");
        assert_eq!(first("nonsense\nnonsense\n", &ALIVE), None);
        let open =
            |lines: &[String]| first(&format!("{HEAD}{}", lines.concat()), &OPEN).map(|socket| socket.to_string());
        let listens = line("00000000000000000000000000000000:1F90", "0A", 1000);
        assert_eq!(open(&[&quiet[..], &[listens]].concat()), None);
        assert_eq!(open(&[line("020012AC:1F90", "03", 1000)]).unwrap(), "user 1000 has a socket on 172.18.0.2:8080");
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn of_udp_what_receives_from_other_hosts_counts() {
        let lines = [
            line("00000000:0035", "07", 1000),
            line("0B00007F:8F11", "07", 0),    // Docker's DNS
            line("00000000:3A9E", "07", 1337), // the sidecar
            line("020012AC:A001", "01", 1000), // has a peer: a question of its own
        ];
        let found = datagrams_of(&format!("{HEAD}{}", lines.concat()));
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["user 1000 has a socket on 0.0.0.0:53"]);
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(datagrams().unwrap().iter().any(|socket| socket.local.port() == port));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_socket_of_somebody_else_shows_that_the_app_is_here() {
        let found = |lines: &[String]| app_of(&format!("{HEAD}{}", lines.concat())).map(|socket| socket.to_string());
        let quiet = [
            line("0B00007F:8F11", "0A", 0),    // Docker's DNS
            line("0B00007F:8F12", "07", 0),    // the same, UDP
            line("00000000:3A9E", "0A", 1337), // the sidecar
            line("020012AC:1F90", "06", 0),    // over
        ];
        assert_eq!(found(&quiet), None);
        let app = line("0100007F:1F90", "0A", 0);
        assert_eq!(found(&[&quiet[..], &[app]].concat()).unwrap(), "user 0 has a socket on 127.0.0.1:8080");
    }

    #[test]
    fn a_real_socket_is_found() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let ours = table.lines().filter_map(entry).find(|(socket, _)| socket.local.port() == port).unwrap().0;
        assert!(ours.local.ip().is_unspecified());
    }
}
