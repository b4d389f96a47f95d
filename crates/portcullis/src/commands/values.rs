//! Argument types that several commands share: each is parsed once, and a shell can complete those of a closed set.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use portcullis_config::{HostPort, NAME_RULE, is_name};
use portcullis_identity::{KeyType, SpiffeId, TrustDomain};
use portcullis_policy::Mode;

use crate::exit::Failure;

const DAY: u64 = 24 * 60 * 60;

/// One of the modes of PeerAuthentication.
pub(crate) fn mode() -> impl TypedValueParser<Value = Mode> {
    let known = PossibleValuesParser::new(Mode::ALL.map(Mode::as_str));
    known.try_map(|text| Mode::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or("unknown mode"))
}

/// One of the kinds of keys.
pub(crate) fn key_type() -> impl TypedValueParser<Value = KeyType> {
    let known = PossibleValuesParser::new(KeyType::ALL.map(|(name, _)| name));
    known.try_map(|text| KeyType::named(&text).ok_or("unknown key type"))
}

/// A namespace by the rules of the configuration: a misspelt one would match nothing, and get the default as its answer.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(NAME_RULE.to_owned()) }
}

pub(crate) fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}

/// A SPIFFE ID; a wrong one is bad input, not a wrong command line.
pub(crate) fn parse_id(text: &str) -> Result<SpiffeId, Failure> {
    SpiffeId::parse(text).with_context(|| text.escape_debug().to_string()).map_err(Failure::bad_input)
}

/// The lifetime of a certificate or token: a whole number and a unit, since `24` alone could mean hours or seconds.
pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    // A century keeps the end of a certificate within what a date can hold.
    match with_unit(text, &[("s", 1), ("m", 60), ("h", 60 * 60), ("d", DAY)]) {
        Some(total @ 1..) if total <= 100 * 365 * DAY => Ok(Duration::from_secs(total)),
        _ => Err("write a whole number and s, m, h or d, such as 24h; at most 100 years".to_owned()),
    }
}

/// A length of time of the past; none is one as well.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    match with_unit(text, &[("s", 1), ("m", 60), ("h", 60 * 60), ("d", DAY)]) {
        Some(total) if total <= 100 * 365 * DAY => Ok(Duration::from_secs(total)),
        _ => Err("write a whole number and s, m, h or d, such as 36h; at most 100 years".to_owned()),
    }
}

/// Why somebody does something: words.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why, in a few words".to_owned()),
        text if text.chars().count() > 500 => Err("at most 500 characters".to_owned()),
        text if text.chars().any(char::is_control) => Err("one line, without control characters".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// How long to wait: a whole number and a unit.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    match with_unit(text, &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]) {
        Some(total @ 1..=86_400_000) => Ok(Duration::from_millis(total)),
        _ => Err("write a whole number and ms, s, m or h, such as 60s; at most 24h".to_owned()),
    }
}

/// A whole number times its unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

/// Labels: `key=value`, separated by commas.
pub(crate) fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for label in text.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').ok_or_else(|| format!("\"{label}\" is not key=value"))?;
        if key.is_empty() || labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("the key of \"{label}\" is empty, or there twice"));
        }
    }
    Ok(labels)
}

/// A port that something can listen on.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| "write a number from 1 to 65535, the container's port; a name is not enough".to_owned())
}

/// A host name or an address, and a port.
pub(crate) fn host_port(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text).ok_or_else(|| "write host:port, such as cart:8080 or [2001:db8::1]:8080".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_number_with_its_unit() {
        for (text, seconds) in [("60s", 60), ("90m", 5400), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(ttl(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "24", "h", "0h", "-1h", "1.5h", "24H", "24 h", "1w", "36501d", "99999999999999999999d"] {
            assert!(ttl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_span_may_be_nothing() {
        assert_eq!((span("0s"), span("36h")), (Ok(Duration::ZERO), Ok(Duration::from_secs(129_600))));
        assert!(span("36").is_err() && span("-1s").is_err() && span("36501d").is_err());
    }

    #[test]
    fn a_timeout_is_a_number_with_its_unit() {
        for (text, milliseconds) in [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("24h", 86_400_000)] {
            assert_eq!(timeout(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "60", "s", "0s", "-1s", "1.5s", "60S", "60 s", "25h", "99999999999999999999h"] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_are_pairs_with_keys_of_their_own() {
        assert!(labels("").unwrap().is_empty());
        let two = labels("app=cart,tier=").unwrap();
        assert_eq!((two["app"].as_str(), two["tier"].as_str()), ("cart", ""));
        for wrong in ["app", "=x", "a=1,a=2"] {
            assert!(labels(wrong).is_err(), "{wrong}");
        }
    }
}
