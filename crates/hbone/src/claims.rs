//! What a peer says of itself and of its request: for logs, and never for a decision.

use http::HeaderMap;

/// The parts of `traceparent` (W3C Trace Context) that find a request again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceParent {
    /// Of the trace; never all zero.
    pub trace_id: [u8; 16],
    /// Of the caller's span; never all zero.
    pub span_id: [u8; 8],
}

/// What the headers of a request claim. What cannot be read is not there: nothing depends on it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Claims {
    /// `traceparent`.
    pub trace: Option<TraceParent>,
    /// `NAMESPACE/NAME` of `baggage` (W3C Baggage), with the keys of Istio's ambient mesh.
    pub workload: Option<Box<str>>,
}

/// The name of a workload has no more characters; that of a namespace neither.
const MAX_NAME: usize = 253;

impl Claims {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let value = |name: &str| headers.get(name)?.to_str().ok();
        Self { trace: value("traceparent").and_then(traceparent), workload: value("baggage").and_then(workload) }
    }
}

/// `VERSION-TRACE-SPAN-FLAGS` in lower-case hexadecimal. A later version may have more behind that.
fn traceparent(text: &str) -> Option<TraceParent> {
    let (version, rest) = (text.get(..2)?, text.get(2..)?);
    let _valid: [u8; 1] = hexadecimal(version)?;
    let parts = rest.get(..53)?.strip_prefix('-')?;
    let behind = rest.get(53..)?;
    let is_whole = if version == "00" { behind.is_empty() } else { behind.is_empty() || behind.starts_with('-') };
    if version == "ff" || !is_whole {
        return None;
    }
    let mut parts = parts.split('-');
    let (trace_id, span_id) = (hexadecimal(parts.next()?)?, hexadecimal(parts.next()?)?);
    let _flags: [u8; 1] = hexadecimal(parts.next()?)?;
    let is_valid = parts.next().is_none() && trace_id != [0; 16] && span_id != [0; 8];
    is_valid.then_some(TraceParent { trace_id, span_id })
}

fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let mut digits = text.bytes();
    for byte in &mut bytes {
        *byte = digit(digits.next()?)? << 4 | digit(digits.next()?)?;
    }
    digits.next().is_none().then_some(bytes)
}

/// Kinds of workloads have keys of their own, such as `k8s.deployment.name`.
fn workload(text: &str) -> Option<Box<str>> {
    let (mut namespace, mut name) = (None, None);
    for member in text.split(',') {
        // Properties of a member stand behind a semicolon.
        let member = member.split_once(';').map_or(member, |(member, _properties)| member);
        let Some((key, value)) = member.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        match key.strip_prefix("k8s.").and_then(|key| key.strip_suffix(".name")) {
            Some("namespace") => namespace = Some(value),
            Some("cluster") | None => {}
            Some(_kind) => name = name.or(Some(value)),
        }
    }
    let (namespace, name) = (namespace.filter(|it| is_name(it))?, name.filter(|it| is_name(it))?);
    Some(format!("{namespace}/{name}").into())
}

fn is_name(text: &str) -> bool {
    let is_meant = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_meant)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn the_example_of_the_standard() {
        let found = traceparent(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!((found.trace_id[0], found.trace_id[15], found.span_id[7]), (0x4b, 0x36, 0xb7));
        // A version of tomorrow.
        assert_eq!(traceparent(&format!("cc-{TRACE}-{SPAN}-01-what-comes")), Some(found));
        assert_eq!(traceparent(&format!("cc-{TRACE}-{SPAN}-01")), Some(found));
    }

    #[test]
    fn what_is_not_whole_is_not_there() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("0-{TRACE}0-{SPAN}-01"),
        ] {
            assert_eq!(traceparent(&text), None, "{text}");
        }
    }

    #[test]
    fn a_workload_has_a_namespace_and_a_name() {
        let istio = "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,service.version=v1";
        assert_eq!(workload(istio).as_deref(), Some("shop/web"));
        assert_eq!(workload(" k8s.namespace.name = shop ;p=1, k8s.cronjob.name = web").as_deref(), Some("shop/web"));
        let long = "x".repeat(MAX_NAME + 1);
        for text in ["", "k8s.namespace.name=shop", "k8s.deployment.name=web", "k8s.namespace.name=,k8s.pod.name=web"] {
            assert_eq!(workload(text), None, "{text}");
        }
        for name in [long.as_str(), "a b", "a\u{1b}[1m", "a%20b", "a/b"] {
            assert_eq!(workload(&format!("k8s.namespace.name=shop,k8s.pod.name={name}")), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_identifier_is_read_as_itself(trace: [u8; 16], span: [u8; 8], flags: u8) {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let expected = (trace != [0; 16] && span != [0; 8]).then_some(TraceParent { trace_id: trace, span_id: span });
            prop_assert_eq!(traceparent(&format!("00-{}-{}-{flags:02x}", hex(&trace), hex(&span))), expected);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}|[0-9a-f-]{50,60}|(k8s\\.[a-z]{0,4}\\.name=[ -~]{0,9},?){0,4}") {
            traceparent(&text);
            if let Some(found) = workload(&text) {
                prop_assert!(found.bytes().filter(|byte| *byte == b'/').count() == 1);
            }
        }
    }
}
