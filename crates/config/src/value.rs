//! Scalars of the file: addresses, durations, ports, IDs. Each error describes the problem and a valid value.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_yaml::{Cursor, Problems};

/// Reason code of a value that has the right type but not the right form.
const INVALID: &str = "invalid-value";

pub(crate) fn socket_addr(at: &Cursor<'_>, problems: &mut Problems) -> Option<SocketAddr> {
    let text = at.string(problems)?;
    match text.parse::<SocketAddr>() {
        Ok(addr) => Some(addr),
        Err(_) => {
            at.report(
                INVALID,
                format!("\"{text}\" is not an IP address with a port; write \"127.0.0.1:15000\" or \"[::1]:15000\""),
                problems,
            );
            None
        }
    }
}

/// A duration such as `250ms`, `10s`, `5m`, `1h`: one number and one unit, as in Istio's protobuf durations.
pub(crate) fn duration(at: &Cursor<'_>, problems: &mut Problems) -> Option<Duration> {
    let mut unheard = Problems::new();
    if at.string(&mut unheard).is_none()
        && let Some(number) = at.integer(0, i64::MAX, &mut unheard)
    {
        at.report(INVALID, format!("{number} has no unit; write {number}s for seconds, or 250ms, 5m, 1h"), problems);
        return None;
    }
    let text = at.string(problems)?;
    let parsed = parse_duration(text);
    if parsed.is_none() {
        at.report(
            INVALID,
            format!("\"{text}\" is not a duration; write a number and a unit: 250ms, 10s, 5m, 1h"),
            problems,
        );
    }
    parsed
}

fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().ok()?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    };
    // Far deadlines overflow the clock arithmetic of the runtime; a year is already "never".
    (duration <= Duration::from_secs(365 * 24 * 3600)).then_some(duration)
}

/// A duration that must not be zero, because a wait of no time refuses everything.
pub(crate) fn positive_duration(at: &Cursor<'_>, problems: &mut Problems) -> Option<Duration> {
    let duration = duration(at, problems)?;
    if duration.is_zero() {
        at.report(INVALID, "must be longer than zero".to_owned(), problems);
        return None;
    }
    Some(duration)
}

/// A number of bytes such as `64MB` or `64MiB`: one number and one unit.
pub(crate) fn size(at: &Cursor<'_>, problems: &mut Problems) -> Option<usize> {
    let mut unheard = Problems::new();
    if at.string(&mut unheard).is_none()
        && let Some(number) = at.integer(0, i64::MAX, &mut unheard)
    {
        at.report(INVALID, format!("{number} has no unit; write {number}MB, or KB, GB, KiB, MiB, GiB"), problems);
        return None;
    }
    let text = at.string(problems)?;
    let parsed = parse_size(text);
    if parsed.is_none() {
        at.report(INVALID, format!("\"{text}\" is not a size; write a number and a unit: 512KB, 64MB, 1GiB"), problems);
    }
    parsed
}

fn parse_size(text: &str) -> Option<usize> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(split);
    let number: usize = digits.parse().ok()?;
    let bytes = match unit {
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

pub(crate) fn port(at: &Cursor<'_>, problems: &mut Problems) -> Option<u16> {
    at.integer(1, 65_535, problems).and_then(|number| u16::try_from(number).ok())
}

pub(crate) fn ports(at: &Cursor<'_>, problems: &mut Problems) -> Option<Vec<u16>> {
    Some(at.items(problems)?.iter().filter_map(|item| port(item, problems)).collect())
}

/// How many connections there may be at once.
pub(crate) fn limit(at: &Cursor<'_>, problems: &mut Problems) -> Option<usize> {
    at.integer(1, 10_000_000, problems).and_then(|number| usize::try_from(number).ok())
}

pub(crate) fn trust_domain(at: &Cursor<'_>, problems: &mut Problems) -> Option<TrustDomain> {
    let text = at.string(problems)?;
    match TrustDomain::parse(text) {
        Ok(domain) => Some(domain),
        Err(error) => {
            at.report(error.class(), format!("\"{text}\" is not a trust domain: {error}"), problems);
            None
        }
    }
}

pub(crate) fn spiffe_id(at: &Cursor<'_>, problems: &mut Problems) -> Option<SpiffeId> {
    let text = at.string(problems)?;
    match SpiffeId::parse(text) {
        Ok(id) => Some(id),
        Err(error) => {
            at.report(error.class(), format!("\"{text}\" is not a SPIFFE ID: {error}"), problems);
            None
        }
    }
}

/// One of a fixed set of words.
pub(crate) fn word<T: Copy>(at: &Cursor<'_>, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
    let text = at.string(problems)?;
    if let Some((_, value)) = words.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    let accepted: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    at.report(INVALID, format!("\"{text}\" is not known here; write one of: {}", accepted.join(", ")), problems);
    None
}

pub(crate) fn invalid(at: &Cursor<'_>, message: impl Into<String>, problems: &mut Problems) {
    at.report(INVALID, message.into(), problems);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_number_and_a_unit() {
        assert_eq!(parse_size("64MB"), Some(64_000_000));
        assert_eq!(parse_size("2MiB"), Some(2 << 20));
        assert_eq!(parse_size("0KB"), Some(0));
        for bad in ["", "MB", "64", "1.5MB", "-1MB", "64 MB", "64mb", "64M", "64B", "99999999999GB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
        for bad in ["", "s", "10", "1.5s", "-1s", "10 s", "10sec", "99999999999999999999s", "99999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
