//! A netlink socket for netfilter: sends messages and awaits each answer with a deadline.

use std::io;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with, sockopt,
};

use crate::attributes::Attribute;

/// The kernel answers at once; a longer wait means a failure.
const DEADLINE: Duration = Duration::from_secs(5);
/// For the largest datagram that the kernel makes of a dump.
const BUFFER: usize = 64 * 1024;
/// Length of `nlmsghdr` and of `nfgenmsg` behind it.
const HEADER: usize = 16;
const GENERAL: usize = 4;
/// `NFPROTO_UNSPEC`, `NFPROTO_INET`.
pub(crate) const UNSPECIFIED: u8 = 0;
pub(crate) const INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: what is listed has changed meanwhile.
const INTERRUPTED: u16 = 0x10;
/// How often a dump is restarted.
const ATTEMPTS: usize = 10;
/// Room for a thousand rules in one transaction; the usual buffer has some for seven hundred.
const SEND_BUFFER: usize = 4 << 20;
/// `NLM_F_*`.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

/// One message about a table, chain or rule.
#[derive(Debug)]
pub(crate) struct Message {
    /// `NFT_MSG_*`.
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) attributes: Vec<Attribute>,
}

/// An error from the kernel.
#[derive(Debug)]
pub(crate) struct NetlinkError {
    /// Index of the message in the batch; `None` if the kernel named none or the socket failed.
    pub(crate) message: Option<usize>,
    pub(crate) error: io::Error,
}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        Self { message: None, error }
    }
}

impl From<rustix::io::Errno> for NetlinkError {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(DEADLINE))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(DEADLINE))?;
        // With CAP_NET_ADMIN the buffer may exceed the usual limit; without it, the change itself fails later.
        let _usual = sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER);
        Ok(Self(socket))
    }

    /// Sends all messages as one transaction: either all hold or none.
    pub(crate) fn transact(&self, messages: &[Message]) -> Result<(), NetlinkError> {
        // The sequence number identifies the message of an answer: 1 is the first within the batch.
        let mut batch = Vec::new();
        write(&mut batch, BATCH_BEGIN, REQUEST, 0, ABOUT_BATCH, &[]);
        let mut last = 0;
        for (message, sequence) in messages.iter().zip(1..) {
            last = sequence;
            // Errors are always reported. An acknowledgement for each message could overflow the socket, so only the last
            // one is requested: the kernel answers in order, after the whole transaction.
            let acknowledge = if usize::try_from(sequence) == Ok(messages.len()) { ACKNOWLEDGE } else { 0 };
            let flags = REQUEST | acknowledge | message.flags;
            write(&mut batch, nftables(message.kind), flags, sequence, ABOUT_INET, &message.attributes);
        }
        write(&mut batch, BATCH_END, REQUEST, last + 1, ABOUT_BATCH, &[]);
        self.send(&batch)?;
        self.answers(|Header { kind, sequence, .. }, body| {
            if kind != ERROR {
                return Ok(false);
            }
            refusal(body).map_err(|error| NetlinkError {
                message: usize::try_from(sequence).ok().and_then(|sequence| sequence.checked_sub(1)),
                error,
            })?;
            Ok(sequence == last)
        })
    }

    /// All tables, chains or rules that match: the attributes of each.
    pub(crate) fn dump(&self, kind: u16, attributes: &[Attribute]) -> Result<Vec<Vec<u8>>, NetlinkError> {
        for _ in 0..ATTEMPTS {
            if let Some(found) = self.dump_once(kind, attributes)? {
                return Ok(found);
            }
        }
        Err(io::Error::other("the rules change faster than they can be listed").into())
    }

    /// `None` if something changed meanwhile.
    fn dump_once(&self, kind: u16, attributes: &[Attribute]) -> Result<Option<Vec<Vec<u8>>>, NetlinkError> {
        let mut request = Vec::new();
        write(&mut request, nftables(kind), REQUEST | DUMP, 1, ABOUT_INET, attributes);
        self.send(&request)?;
        let (mut found, mut whole) = (Vec::new(), true);
        self.answers(|Header { kind, flags, .. }, body| {
            whole &= flags & INTERRUPTED == 0;
            match kind {
                DONE | ERROR => Ok(refusal(body).map(|()| true)?),
                _ => {
                    found.extend(body.get(GENERAL..).map(<[u8]>::to_vec));
                    Ok(false)
                }
            }
        })?;
        Ok(whole.then_some(found))
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        let sent = sendto(&self.0, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero).into()) }
    }

    /// Reads messages until `done` returns true for one.
    fn answers(&self, mut done: impl FnMut(Header, &[u8]) -> Result<bool, NetlinkError>) -> Result<(), NetlinkError> {
        let mut buffer = vec![0; BUFFER];
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            let (_, length) = recv(&self.0, &mut buffer[..], RecvFlags::empty()).map_err(late)?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((header, body, next)) = message(rest) {
                if done(header, body)? {
                    return Ok(());
                }
                rest = next;
            }
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }
}

fn late(errno: rustix::io::Errno) -> NetlinkError {
    // That is how the end of a socket's own deadline looks.
    if errno == rustix::io::Errno::AGAIN { io::Error::from(io::ErrorKind::TimedOut).into() } else { errno.into() }
}

const fn nftables(kind: u16) -> u16 {
    NFTABLES << 8 | kind
}

/// `struct nfgenmsg`: the address family and the resource that a message is about.
#[derive(Clone, Copy)]
struct NfGenMsg {
    family: u8,
    resource: u16,
}

/// A batch of changes to nftables.
const ABOUT_BATCH: NfGenMsg = NfGenMsg { family: UNSPECIFIED, resource: NFTABLES };
/// Tables, chains and rules of the family `inet`.
const ABOUT_INET: NfGenMsg = NfGenMsg { family: INET, resource: 0 };

fn write(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, about: NfGenMsg, attributes: &[Attribute]) {
    let start = out.len();
    out.extend(0_u32.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    // The kernel fills in the port id.
    out.extend(0_u32.to_ne_bytes());
    out.extend([about.family, 0]);
    out.extend(about.resource.to_be_bytes());
    attributes.iter().for_each(|attribute| attribute.write(out));
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
}

/// The header of each message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// The first message, and what follows it.
fn message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let (flags, rest) = rest.split_first_chunk()?;
    let (sequence, _) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    let (kind, flags) = (u16::from_ne_bytes(*kind), u16::from_ne_bytes(*flags));
    Some((Header { kind, flags, sequence: u32::from_ne_bytes(*sequence) }, body, next))
}

/// An error of 0 is an acknowledgement.
fn refusal(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().map_or(i32::MIN, |code| i32::from_ne_bytes(*code));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        write(&mut bytes, nftables(6), REQUEST, 7, ABOUT_INET, &[Attribute::text(1, "abc")]);
        write(&mut bytes, BATCH_END, REQUEST, 8, ABOUT_BATCH, &[]);
        let (header, body, rest) = message(&bytes).unwrap();
        assert_eq!((header, body.len()), (Header { kind: 0x0a06, flags: REQUEST, sequence: 7 }, GENERAL + 8));
        let (header, body, rest) = message(rest).unwrap();
        assert_eq!((header.kind, header.sequence, body), (BATCH_END, 8, &[0, 0, 0, 10][..]));
        assert!(message(rest).is_none());
    }

    #[test]
    fn an_error_is_told_by_its_negative_number() {
        assert!(refusal(&0_i32.to_ne_bytes()).is_ok());
        assert_eq!(refusal(&(-1_i32).to_ne_bytes()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(refusal(&[]).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while let Some((_, _, next)) = message(rest) {
                prop_assert!(next.len() < rest.len());
                rest = next;
            }
        }
    }
}
