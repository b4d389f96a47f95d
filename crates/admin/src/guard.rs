//! Access to the admin server: who may read pages and who may change state.
//!
//! On loopback the danger is a web page in somebody's browser: it can send requests to 127.0.0.1, and by DNS rebinding also
//! read the answers. `Origin` and `Sec-Fetch-Site` reveal the first, `Host` the second. On any other address every host of the
//! network may connect, so a change requires a token, which no browser sends by itself.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::{Request, StatusCode};

use crate::{Token, TokenError};

/// A header that browsers send and pages cannot forge.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) words: &'static str,
}

const fn forbidden(words: &'static str) -> Refused {
    Refused { status: StatusCode::FORBIDDEN, words }
}

const fn unauthorized(words: &'static str) -> Refused {
    Refused { status: StatusCode::UNAUTHORIZED, words }
}

/// The rules of one listening address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    listen: IpAddr,
}

impl Guard {
    pub(crate) const fn new(listen: IpAddr) -> Self {
        Self { listen }
    }

    pub(crate) fn is_loopback(self) -> bool {
        self.listen.to_canonical().is_loopback()
    }

    /// Whether a page with more than health and metrics may be shown.
    pub(crate) fn may_see<B>(self, request: &Request<B>) -> Result<(), Refused> {
        if !self.is_loopback() || self.is_meant(request) {
            return Ok(());
        }
        Err(forbidden(
            "the Host of a request to this address must be localhost, 127.0.0.1, [::1] or the address itself",
        ))
    }

    /// Whether a change may be made, given the token that is configured.
    pub(crate) fn may_change<B>(
        self,
        request: &Request<B>,
        token: &Result<Option<Token>, TokenError>,
    ) -> Result<(), Refused> {
        if self.is_loopback() {
            self.may_see(request)?;
            if !is_own_page(request.headers()) {
                return Err(forbidden("a page of another origin may not change anything here"));
            }
        }
        match token {
            Ok(Some(token)) => shown(request.headers(), token),
            Ok(None) if self.is_loopback() => Ok(()),
            Ok(None) => Err(forbidden(
                "changes on an address that is not loopback need admin.tokenFile in the configuration, and its token",
            )),
            Err(_) => Err(forbidden("admin.tokenFile cannot be used, so nothing can be changed; the log says why")),
        }
    }

    /// Whether the request names this server: another name that resolves here is DNS rebinding.
    fn is_meant<B>(self, request: &Request<B>) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let named = |host: &[u8]| std::str::from_utf8(host).is_ok_and(|host| self.is_own_name(host));
        // An absolute target replaces the header, so both must be right.
        named(host.as_bytes()) && request.uri().authority().is_none_or(|authority| self.is_own_name(authority.as_str()))
    }

    fn is_own_name(self, authority: &str) -> bool {
        let Some(host) = without_port(authority) else { return false };
        if host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6.parse().map(IpAddr::V6),
            None => host.parse().map(IpAddr::V4),
        };
        let known = [self.listen, IpAddr::from([127, 0, 0, 1]), IpAddr::from([0_u16, 0, 0, 0, 0, 0, 0, 1])];
        address.is_ok_and(|address| known.contains(&address))
    }
}

/// The host of `host[:port]`; `None` if the port is not one.
fn without_port(authority: &str) -> Option<&str> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => {
            (!port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())).then_some(host)
        }
        _ => Some(authority),
    }
}

/// Not sent by a page of another origin. Programs send no `Origin`; a browser does with every POST, and where it hides it
/// (`null`), it does so for a reason.
fn is_own_page(headers: &HeaderMap) -> bool {
    let own = |origin: &HeaderValue| {
        let (origin, host) = (origin.as_bytes().to_ascii_lowercase(), headers.get(HOST));
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        authority.is_some() && authority == host.map(|host| host.as_bytes().to_ascii_lowercase()).as_deref()
    };
    let site = |site: &HeaderValue| site == "same-origin" || site == "none";
    headers.get_all(ORIGIN).iter().all(own) && headers.get_all(SEC_FETCH_SITE).iter().all(site)
}

fn shown(headers: &HeaderMap, token: &Token) -> Result<(), Refused> {
    const BEARER: &[u8] = b"bearer ";
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(unauthorized("changes need the header: Authorization: Bearer TOKEN"));
    };
    match value.as_bytes().split_at_checked(BEARER.len()) {
        Some((scheme, shown)) if scheme.eq_ignore_ascii_case(BEARER) && token.is(shown) => Ok(()),
        _ => Err(unauthorized("that is not the token of admin.tokenFile")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1";

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    fn sees(listen: &str, headers: &[(&str, &str)]) -> bool {
        Guard::new(listen.parse().unwrap()).may_see(&request(headers)).is_ok()
    }

    fn changes(listen: &str, token: Option<&str>, headers: &[(&str, &str)]) -> Result<(), StatusCode> {
        let token = token.map(|token| Token::parse(token.as_bytes()).unwrap());
        let guard = Guard::new(listen.parse().unwrap());
        guard.may_change(&request(headers), &Ok(token)).map_err(|refused| refused.status)
    }

    #[test]
    fn loopback_is_seen_under_its_own_names_only() {
        for host in ["localhost", "LOCALHOST:15000", "127.0.0.1:1", "127.0.0.1", "[::1]", "[::1]:15000"] {
            assert!(sees(LOOPBACK, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.test",
            "localhost.evil.test",
            "127.0.0.1.evil.test:15000",
            "127.0.0.2",
            "2130706433",
            "0x7f.1",
            "::1",
            "[::1",
            "[127.0.0.1]",
            "localhost:",
            "localhost:80x",
            "user@localhost",
            "",
        ] {
            assert!(!sees(LOOPBACK, &[("host", host)]), "{host}");
        }
        assert!(!sees(LOOPBACK, &[]), "no Host at all");
        assert!(!sees(LOOPBACK, &[("host", "localhost"), ("host", "evil.test")]));
        assert!(sees("127.64.1.2", &[("host", "127.64.1.2:15000")]) && sees("::1", &[("host", "[::1]:1")]));
        assert!(sees("10.0.0.1", &[("host", "portcullis.shop.svc")]), "not loopback: it has names we do not know");
    }

    #[test]
    fn an_absolute_target_must_name_us_too() {
        let mut request = request(&[("host", "localhost")]);
        *request.uri_mut() = "http://evil.test/".parse().unwrap();
        assert!(Guard::new(LOOPBACK.parse().unwrap()).may_see(&request).is_err());
        *request.uri_mut() = "http://127.0.0.1:15000/".parse().unwrap();
        assert!(Guard::new(LOOPBACK.parse().unwrap()).may_see(&request).is_ok());
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let post = |headers: &[(&str, &str)]| {
            changes(LOOPBACK, None, &[&[("host", "localhost:15000")], headers].concat()).is_ok()
        };
        assert!(post(&[]));
        assert!(post(&[("origin", "http://localhost:15000"), ("sec-fetch-site", "same-origin")]));
        for origin in [
            "http://evil.test",
            "null",
            "",
            "http://localhost:3000",
            "http://localhost",
            "localhost:15000",
            "ftp://localhost:15000",
        ] {
            assert!(!post(&[("origin", origin)]), "{origin}");
        }
        assert!(!post(&[("origin", "http://localhost:15000"), ("origin", "http://evil.test")]));
        assert!(!post(&[("sec-fetch-site", "cross-site")]) && !post(&[("sec-fetch-site", "same-site")]));
        assert_eq!(changes(LOOPBACK, None, &[("host", "evil.test")]), Err(StatusCode::FORBIDDEN));
    }

    #[test]
    fn another_address_changes_nothing_without_the_token() {
        const TOKEN: &str = "0123456789abcdef";
        for listen in ["0.0.0.0", "10.0.0.1", "::"] {
            let host = ("host", "localhost");
            assert_eq!(changes(listen, None, &[host]), Err(StatusCode::FORBIDDEN));
            assert_eq!(changes(listen, None, &[host, ("authorization", "Bearer ")]), Err(StatusCode::FORBIDDEN));
            assert_eq!(changes(listen, Some(TOKEN), &[host]), Err(StatusCode::UNAUTHORIZED));
            for wrong in
                ["Bearer 0123456789abcdeg", "Basic 0123456789abcdef", TOKEN, "Bearer", "Bearer  0123456789abcdef"]
            {
                let wrong = ("authorization", wrong);
                assert_eq!(changes(listen, Some(TOKEN), &[wrong]), Err(StatusCode::UNAUTHORIZED), "{wrong:?}");
            }
            assert_eq!(changes(listen, Some(TOKEN), &[("authorization", "bearer 0123456789abcdef")]), Ok(()));
        }
        let guard = Guard::new("0.0.0.0".parse().unwrap());
        let bad = guard.may_change(&request(&[]), &Err(TokenError::Short)).unwrap_err();
        assert!(bad.status == StatusCode::FORBIDDEN && bad.words.contains("tokenFile"), "{bad:?}");
    }

    #[test]
    fn a_token_that_is_configured_is_asked_for_on_loopback_too() {
        const TOKEN: &str = "0123456789abcdef";
        let (host, right) = (("host", "localhost"), ("authorization", "Bearer 0123456789abcdef"));
        assert_eq!(changes(LOOPBACK, Some(TOKEN), &[host]), Err(StatusCode::UNAUTHORIZED));
        assert_eq!(changes(LOOPBACK, Some(TOKEN), &[host, right]), Ok(()));
        assert_eq!(changes(LOOPBACK, Some(TOKEN), &[right]), Err(StatusCode::FORBIDDEN), "Host still counts");
    }
}
