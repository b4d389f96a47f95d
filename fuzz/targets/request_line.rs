//! The first bytes of a plaintext connection, where `inbound.httpHint` is on.
//!
//! - What is settled stays so, however much comes behind it, and it is settled within the bound.
//! - It is a whole line exactly if a second, naive reading of RFC 9112 accepts it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_wire::http1::{MAX_REQUEST_LINE, RequestLine, request_line};

fuzz_target!(|bytes: &[u8]| {
    let whole = request_line(bytes);
    assert_eq!(matches!(whole, RequestLine::Whole { .. }), naive(bytes), "{}", bytes.escape_ascii());
    assert!(whole != RequestLine::Partial || bytes.len() < MAX_REQUEST_LINE);
    for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let before = request_line(&bytes[..cut]);
        assert!(before == RequestLine::Partial || before == whole, "{cut}: {}", bytes.escape_ascii());
    }
});

/// `method SP request-target SP HTTP-version CRLF`, or the bare LF that a recipient may take for it.
fn naive(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return false };
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else { return false };
    let line = line.strip_suffix('\r').unwrap_or(line);
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = parts[..] else { return false };
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    end < MAX_REQUEST_LINE
        && (1..=32).contains(&method.len())
        && method.chars().all(token)
        && !target.is_empty()
        && target.chars().all(|c| c.is_ascii_graphic())
        && version.strip_prefix("HTTP/1.").is_some_and(|minor| minor.len() == 1 && minor.as_bytes()[0].is_ascii_digit())
}
