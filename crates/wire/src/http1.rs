//! Detects the request line of HTTP/1 (RFC 9112, 3) in a client's first bytes.

/// The longest accepted request line: RFC 9112 requires at least 8,000 bytes.
pub const MAX_REQUEST_LINE: usize = 8192;
/// The longest accepted method; the longest registered one has 17 characters.
const MAX_METHOD: usize = 32;

/// The kind of some first bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestLine {
    /// A whole request line of HTTP/1.
    Whole {
        /// The method is HEAD, whose answer has no content.
        head: bool,
    },
    /// A prefix of a possible request line.
    Partial,
    /// Something else, such as the preface of HTTP/2.
    Other,
}

/// Classifies the first bytes of a connection.
#[must_use]
pub fn request_line(bytes: &[u8]) -> RequestLine {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let line = end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
    if line.len() >= MAX_REQUEST_LINE {
        return RequestLine::Other;
    }
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let (method, target, version) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let is_visible = |part: &[u8]| part.iter().all(u8::is_ascii_graphic);
    if method.len() > MAX_METHOD || !method.iter().copied().all(is_token) || !target.is_none_or(is_visible) {
        return RequestLine::Other;
    }
    let whole = version.and_then(|version| version.strip_suffix(b"\r")).or(version).filter(|_| end.is_some());
    match (whole, version) {
        // Neither part may be empty, and a line that has ended without a version is of HTTP/0.9 or of nothing.
        _ if end.is_some() && (method.is_empty() || target.is_none_or(<[u8]>::is_empty)) => RequestLine::Other,
        _ if target.is_some() && method.is_empty() => RequestLine::Other,
        (Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor]), _) if minor.is_ascii_digit() => {
            RequestLine::Whole { head: method == b"HEAD" }
        }
        (None, Some(version)) if end.is_none() && may_become_version(version) => RequestLine::Partial,
        (None, None) if end.is_none() => RequestLine::Partial,
        _ => RequestLine::Other,
    }
}

/// Whether this is the beginning of `HTTP/1.`, a digit, and the end of the line.
fn may_become_version(bytes: &[u8]) -> bool {
    const NAME: &[u8] = b"HTTP/1.";
    match bytes.strip_prefix(NAME) {
        None => NAME.starts_with(bytes),
        Some([]) => true,
        Some([minor, rest @ ..]) => minor.is_ascii_digit() && matches!(rest, [] | [b'\r']),
    }
}

/// The characters of a method (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: RequestLine = RequestLine::Whole { head: false };

    #[test]
    fn request_lines_of_http_1_are_known_and_nothing_else() {
        for line in ["GET / HTTP/1.1\r\n", "POST /a?b=c HTTP/1.0\r\nHost: x\r\n\r\nbody", "OPTIONS * HTTP/1.1\n"] {
            assert_eq!(request_line(line.as_bytes()), WHOLE, "{line}");
        }
        assert_eq!(request_line(b"HEAD / HTTP/1.1\r\n"), RequestLine::Whole { head: true });
        for line in [
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET /\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET / HTTP/1.x\r\n",
            "GET / HTTP/1.10\r\n",
            " / HTTP/1.1\r\n",
            "GET  HTTP/1.1\r\n",
            "G\u{e9}T / HTTP/1.1\r\n",
            "\r\nGET / HTTP/1.1\r\n",
            "SSH-2.0-OpenSSH_9.9\r\n",
            "EHLO client.example\r\n",
            "GET /\t HTTP/1.1\r\n",
            "garbage\0",
        ] {
            assert_eq!(request_line(line.as_bytes()), RequestLine::Other, "{line:?}");
        }
    }

    #[test]
    fn the_beginning_of_a_line_is_waited_for_up_to_a_bound() {
        let line = b"GET /path HTTP/1.1\r\n";
        for end in 0..line.len() {
            assert_eq!(request_line(&line[..end]), RequestLine::Partial, "{end}");
        }
        let long = |length: usize| [b"GET /".as_slice(), &vec![b'x'; length - 5]].concat();
        assert_eq!(request_line(&long(MAX_REQUEST_LINE - 1)), RequestLine::Partial);
        assert_eq!(request_line(&long(MAX_REQUEST_LINE)), RequestLine::Other);
        assert_eq!(request_line(b"PRI * HTTP/2"), RequestLine::Other, "as soon as it shows");
        assert_eq!(request_line(&[b'A'; MAX_METHOD + 1]), RequestLine::Other);
    }

    proptest! {
        /// More bytes never change what is settled.
        #[test]
        fn what_is_settled_stays_so(bytes in proptest::collection::vec(any::<u8>(), 0..64), method in "[A-Z]{0,8} ?/? ?") {
            let bytes = [method.as_bytes(), &bytes].concat();
            let mut settled = None;
            for end in 0..=bytes.len() {
                let now = request_line(&bytes[..end]);
                prop_assert!(settled.is_none_or(|settled| settled == now), "{:?} at {}", now, end);
                settled = Some(now).filter(|now| *now != RequestLine::Partial);
            }
        }
    }
}
