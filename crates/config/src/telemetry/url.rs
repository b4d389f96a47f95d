//! The URL of an OTLP endpoint.

use std::fmt;

use crate::HostPort;

/// The path for logs, appended to a base endpoint.
const LOGS: &str = "/v1/logs";

/// `http://HOST[:PORT][/PATH]`, or https. What it cannot have (a user, a query, a fragment) is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OtlpUrl {
    /// https.
    pub tls: bool,
    /// Host and port.
    pub address: HostPort,
    /// Path, which begins with a slash.
    pub path: String,
}

impl OtlpUrl {
    /// Reads it; the message says what is wrong and what would be right.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = |why: &str| Err(format!("\"{text}\" {why}; write http://collector:4318 or https://…"));
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => return refused("does not begin with http:// or https://"),
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refused("has a blank, or a character that is not ASCII");
        }
        if rest.contains(['@', '?', '#']) {
            return refused("has a user, a query or a fragment, which is not supported");
        }
        let split = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let port = if tls { 443 } else { 80 };
        let with_port = if authority.ends_with(']') || !authority.contains(':') {
            format!("{authority}:{port}")
        } else {
            authority.to_owned()
        };
        let Some(address) = HostPort::parse(&with_port) else { return refused("has no host, or an invalid port") };
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { tls, address, path: path.to_owned() })
    }

    /// The endpoint for logs below a base endpoint.
    #[must_use]
    pub fn for_logs(&self) -> Self {
        Self { path: format!("{}{LOGS}", self.path.trim_end_matches('/')), ..self.clone() }
    }
}

impl fmt::Display for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_gets_the_path_for_logs() {
        for (text, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/logs"),
            ("http://collector:4318/", "http://collector:4318/v1/logs"),
            ("https://otlp.example.com/tenant/", "https://otlp.example.com:443/tenant/v1/logs"),
            ("http://[::1]", "http://[::1]:80/v1/logs"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/logs"),
            ("http://10.0.0.1", "http://10.0.0.1:80/v1/logs"),
        ] {
            assert_eq!(OtlpUrl::parse(text).unwrap().for_logs().to_string(), expected);
        }
        assert_eq!(OtlpUrl::parse("http://collector:4318").unwrap().path, "/");
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "collector:4318",
            "grpc://collector:4317",
            "http://",
            "http:///v1/logs",
            "http://user@collector:4318",
            "http://collector:4318/?a=b",
            "http://collector:4318/#a",
            "http://collector:0",
            "http://collector:99999",
            "http://col lector:4318",
            "http://collector:4318/\r\nx: y",
            "http://[::1",
        ] {
            assert!(OtlpUrl::parse(text).is_err(), "{text}");
        }
    }
}
