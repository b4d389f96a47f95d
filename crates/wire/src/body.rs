//! The body of one whole ClientHello message (RFC 8446, 4.1.2; for TLS 1.2 and older RFC 5246, 7.4.1.2).
//!
//! The structure is checked strictly, every length to the byte: a hello that can be read in two ways must not be
//! forwarded as if it said one thing and served as if it said another. Values are not validated: the TLS stack decides
//! which versions and cipher suites are acceptable. Only server_name and ALPN are parsed.

use crate::alpn::is_mesh_alpn;

/// server_name, RFC 6066.
const EXT_SERVER_NAME: u16 = 0;
/// application_layer_protocol_negotiation, RFC 7301.
const EXT_ALPN: u16 = 16;
/// The only name type of a server_name list that was ever defined.
const NAME_TYPE_HOST: u8 = 0;

const VERSION_LEN: usize = 2;
const RANDOM_LEN: usize = 32;
const MAX_SESSION_ID: usize = 32;

/// A DNS name has at most 253 characters; nothing longer is kept.
const MAX_SNI: usize = 253;
/// How much of the client's ALPN list is kept for logs. Whether it holds a mesh name is decided on all of it.
const MAX_ALPN_NAMES: usize = 8;
const MAX_ALPN_NAME: usize = 32;

/// The content of a ClientHello that a proxy in front of the TLS stack needs. None of it is authenticated.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HelloInfo {
    /// At least one of the offered ALPN names is a mesh name.
    pub has_mesh_alpn: bool,
    /// The offered ALPN names, for logs only: at most eight, each cut at 32 bytes, anything unprintable escaped.
    pub alpn: Vec<String>,
    /// The server name: absent if there is none, or if it is too long for a name, or not printable.
    pub sni: Option<String>,
    /// There is a server name that is too long, or not printable.
    pub has_unusable_sni: bool,
}

/// Reads the body of a whole message. `None` if it is not a ClientHello, to the byte.
pub(crate) fn parse(body: &[u8]) -> Option<HelloInfo> {
    let mut body = Cursor(body);
    body.take(VERSION_LEN)?;
    body.take(RANDOM_LEN)?;
    if body.vector8()?.len() > MAX_SESSION_ID {
        return None;
    }
    let suites = body.vector16()?;
    if suites.is_empty() || !suites.len().is_multiple_of(2) || body.vector8()?.is_empty() {
        return None;
    }
    // A hello of TLS 1.2 or older may end here, without an extension block.
    let info = if body.is_empty() { HelloInfo::default() } else { extensions(body.vector16()?)? };
    body.is_empty().then_some(info)
}

fn extensions(block: &[u8]) -> Option<HelloInfo> {
    let mut block = Cursor(block);
    let mut info = HelloInfo::default();
    let (mut seen_name, mut seen_alpn) = (false, false);
    while !block.is_empty() {
        let kind = block.u16()?;
        let content = block.vector16()?;
        match kind {
            // Duplicates are forbidden: we and the TLS stack could use different ones.
            EXT_SERVER_NAME if !seen_name => {
                seen_name = true;
                let name = server_name(content)?;
                info.sni = name.and_then(usable_name);
                info.has_unusable_sni = name.is_some() && info.sni.is_none();
            }
            EXT_ALPN if !seen_alpn => {
                seen_alpn = true;
                alpn(content, &mut info)?;
            }
            EXT_SERVER_NAME | EXT_ALPN => return None,
            _ => {}
        }
    }
    Some(info)
}

/// The outer `Option` is `None` for a malformed extension, the inner one without a name that can be logged.
fn server_name(content: &[u8]) -> Option<Option<&[u8]>> {
    let mut names = whole_list(content)?;
    let mut host = None;
    while !names.is_empty() {
        let kind = names.u8()?;
        let name = names.vector16()?;
        if kind == NAME_TYPE_HOST && host.is_none() {
            host = Some(name);
        }
    }
    Some(host)
}

fn usable_name(name: &[u8]) -> Option<String> {
    let fit = !name.is_empty() && name.len() <= MAX_SNI && name.iter().all(u8::is_ascii_graphic);
    fit.then(|| name.iter().copied().map(char::from).collect())
}

fn alpn(content: &[u8], info: &mut HelloInfo) -> Option<()> {
    let mut names = whole_list(content)?;
    while !names.is_empty() {
        let name = names.vector8()?;
        if name.is_empty() {
            return None;
        }
        info.has_mesh_alpn |= is_mesh_alpn(name);
        if info.alpn.len() < MAX_ALPN_NAMES {
            info.alpn.push(name.get(..MAX_ALPN_NAME).unwrap_or(name).escape_ascii().to_string());
        }
    }
    Some(())
}

/// The entries of an extension whose content is exactly one non-empty list.
fn whole_list(content: &[u8]) -> Option<Cursor<'_>> {
    let mut content = Cursor(content);
    let list = content.vector16()?;
    (content.is_empty() && !list.is_empty()).then_some(Cursor(list))
}

/// Takes bytes from the start of a slice; `None` if it is too short.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    /// A vector with a length field of one byte.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    /// A vector with a length field of two bytes.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }
}
