//! Answers of servers that refuse in words: they are no bytes of the app behind.

/// Texts in the refusals of TLS servers and sidecars, in answers with these codes.
const KNOWN: [(&[u8], &str); 7] = [
    (b"Mutual TLS is required here", "the hint of a sidecar that mTLS is required"),
    (b"The plain HTTP request was sent to HTTPS port", "nginx' answer to plaintext"),
    (b"speaking plain HTTP to an SSL-enabled server port", "Apache's answer to plaintext"),
    (b"Client sent an HTTP request to an HTTPS server", "Go's answer to plaintext"),
    (b"No required SSL certificate was sent", "nginx' answer to a client without a certificate"),
    (b"The SSL certificate error", "nginx' answer to a client certificate that it does not trust"),
    (b"400 The SSL certificate", "nginx' answer to a client certificate that it does not trust"),
];

/// What the refusal is, if these bytes are one that is known.
pub(crate) fn refusal(bytes: &[u8]) -> Option<&'static str> {
    let status = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    if !matches!(status, b"400" | b"403" | b"421" | b"426") {
        return None;
    }
    let contains = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    KNOWN.iter().find(|(text, _)| contains(text)).map(|(_, what)| *what)
}

/// The description of an alert record in these bytes, which a TLS server may answer plaintext with.
pub(crate) fn alert(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [0x15, 3, _, 0, 2, 1 | 2, description, ..] => Some(*description),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_with_a_known_text_is_a_refusal() {
        let answer = |status: &str, body: &str| format!("HTTP/1.1 {status} X\r\n\r\n{body}").into_bytes();
        assert!(refusal(&answer("403", "Mutual TLS is required here. Connect")).is_some());
        assert!(refusal(&answer("400", "400 The plain HTTP request was sent to HTTPS port")).is_some());
        assert!(refusal(&answer("200", "Mutual TLS is required here. Connect")).is_none());
        assert!(refusal(&answer("403", "this app has no page for you")).is_none());
        assert!(refusal(b"HTTP/1.").is_none() && refusal(b"+OK").is_none());
        assert_eq!((alert(&[0x15, 3, 1, 0, 2, 2, 70]), alert(b"HTTP")), (Some(70), None));
    }
}
