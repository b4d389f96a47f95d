//! Environment variables of Istio's agents, under the same names: they apply where neither file nor resources set a value. The names and their defaults are those of `istio-agent` (`pilot/cmd/pilot-agent/options`).

use std::fmt;
use std::time::Duration;

use portcullis_identity::KeyType;
use portcullis_policy::go_duration;

use crate::CaClient;

/// The variables that mean something for `identity.ca`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Environment {
    /// `SECRET_TTL`: the lifetime to request.
    pub ttl: Option<Duration>,
    /// `WORKLOAD_RSA_KEY_SIZE`, or `ECC_SIGNATURE_ALGORITHM` with `ECC_CURVE`.
    pub key_type: Option<KeyType>,
    /// `SECRET_GRACE_PERIOD_RATIO` and `SECRET_GRACE_PERIOD_RATIO_JITTER`.
    pub renewal: Renewal,
}

/// When a certificate is renewed, in millionths of its lifetime.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Renewal {
    /// The part of its lifetime that is left then.
    pub grace: u32,
    /// Random deviation, in both directions.
    pub jitter: u32,
}

/// The whole, of which [`Renewal`] has parts.
const WHOLE: u32 = 1_000_000;
/// Less would leave no time for a second attempt.
const LEAST: u32 = 50_000;
/// More would be a new certificate right after the last one, for ever.
const MOST: u32 = 950_000;

impl Default for Renewal {
    /// At half of its lifetime, plus or minus a tenth of that. Istio's jitter is 0.01, which is narrow for many that start together.
    fn default() -> Self {
        Self { grace: 500_000, jitter: 50_000 }
    }
}

impl Renewal {
    /// The earliest and the latest point of renewal in a lifetime.
    #[must_use]
    pub fn window(self, life: Duration) -> (Duration, Duration) {
        let after = |left: u32| life / 1000 * ((WHOLE - left.clamp(LEAST, MOST)) / 1000);
        (after(self.grace.saturating_add(self.jitter)), after(self.grace.saturating_sub(self.jitter)))
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The proxy's own file.
    File,
    /// An IstioOperator among the policies.
    Resource,
    /// A variable of Istio's agents.
    Environment,
    /// The default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Resource => "resource",
            Self::Environment => "environment",
            Self::Default => "default",
        })
    }
}

impl CaClient {
    /// The key type in force and its origin; `resource` is the one of the policies' IstioOperators.
    #[must_use]
    pub fn key_in_force(&self, resource: Option<KeyType>) -> (KeyType, Origin) {
        let ways = [
            (self.key_type, Origin::File),
            (resource, Origin::Resource),
            (self.environment.key_type, Origin::Environment),
        ];
        let said = ways.into_iter().find_map(|(kind, origin)| kind.map(|kind| (kind, origin)));
        said.unwrap_or_else(|| (KeyType::default(), Origin::Default))
    }

    /// The lifetime to request and its origin. `None` leaves it to the CA.
    #[must_use]
    pub fn ttl_in_force(&self) -> (Option<Duration>, Origin) {
        match (self.ttl, self.environment.ttl) {
            (Some(ttl), _) => (Some(ttl), Origin::File),
            (None, Some(ttl)) => (Some(ttl), Origin::Environment),
            (None, None) => (None, Origin::Default),
        }
    }
}

impl Environment {
    /// Reads the variables; an empty one counts as none.
    ///
    /// # Errors
    /// Every variable that cannot be used, with what would be right. Istio would log it and take its default.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let get = |name: &str| variable(name).filter(|text| !text.is_empty());
        let mut take = |name: &'static str, wanted: &str, parsed: Option<Option<u64>>| {
            if parsed == Some(None) {
                let text = portcullis_yaml::printable(&get(name).unwrap_or_default());
                wrong.push(format!("{name}: \"{text}\" {wanted}"));
            }
            parsed.flatten()
        };
        let seconds = get("SECRET_TTL").map(|text| go_duration(&text).and_then(whole_seconds));
        let wanted = "is not a lifetime; write a duration as Go does, in whole seconds and a year at most: 24h, 1h30m";
        let ttl = take("SECRET_TTL", wanted, seconds).map(Duration::from_secs);

        let mut ratio = |name, range: std::ops::RangeInclusive<u32>, wanted: &str, default: u32| {
            let parsed = get(name).map(|text| millionths(&text).filter(|part| range.contains(part)).map(u64::from));
            take(name, wanted, parsed).and_then(|part| u32::try_from(part).ok()).unwrap_or(default)
        };
        let usual = Renewal::default();
        let wanted = "is not a part of a life; write a number from 0.05 to 0.95";
        let grace = ratio("SECRET_GRACE_PERIOD_RATIO", LEAST..=MOST, wanted, usual.grace);
        let wanted = "is not a part of a life; write a number from 0 to 0.5";
        let jitter = ratio("SECRET_GRACE_PERIOD_RATIO_JITTER", 0..=WHOLE / 2, wanted, usual.jitter);

        let bits = get("WORKLOAD_RSA_KEY_SIZE").map(|text| rsa(&text));
        if bits == Some(None) {
            take("WORKLOAD_RSA_KEY_SIZE", "is no size of an RSA key here; write 2048, 3072 or 4096", Some(None));
        }
        let algorithm = get("ECC_SIGNATURE_ALGORITHM").map(|text| (text == "ECDSA").then_some(0));
        take("ECC_SIGNATURE_ALGORITHM", "is no algorithm for elliptic curves here; write ECDSA", algorithm);
        let curve = get("ECC_CURVE").map(|text| curve(&text));
        if curve == Some(None) {
            take("ECC_CURVE", "is no curve here; write P256 or P384", Some(None));
        }
        let key_type = match (algorithm, bits, curve) {
            // As in Istio: the algorithm for elliptic curves goes before the size for RSA.
            (Some(_), _, curve) => Some(curve.flatten().unwrap_or_default()),
            (None, Some(bits), _) => bits,
            // In Istio a curve alone does nothing, since its default is RSA; ours is ECDSA.
            (None, None, curve) => curve.flatten(),
        };
        let read = Self { ttl, key_type, renewal: Renewal { grace, jitter } };
        if wrong.is_empty() { Ok(read) } else { Err(wrong) }
    }
}

fn whole_seconds(ttl: Duration) -> Option<u64> {
    let usable = ttl.subsec_nanos() == 0 && !ttl.is_zero() && ttl <= Duration::from_secs(365 * 24 * 3600);
    usable.then_some(ttl.as_secs())
}

fn rsa(text: &str) -> Option<KeyType> {
    text.parse().ok().and_then(KeyType::rsa)
}

fn curve(text: &str) -> Option<KeyType> {
    match text {
        "P256" => Some(KeyType::EcdsaP256),
        "P384" => Some(KeyType::EcdsaP384),
        _ => None,
    }
}

/// A decimal number such as `0.5` or `1`, in millionths; what is smaller is cut off.
fn millionths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(digits(whole) && digits(fraction)) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    whole.checked_mul(WHOLE)?.checked_add(fraction.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Vec<String>> {
        Environment::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn nothing_said_is_nothing_changed() {
        assert_eq!(read(&[]), Ok(Environment::default()));
        assert_eq!(read(&[("SECRET_TTL", ""), ("WORKLOAD_RSA_KEY_SIZE", "")]), Ok(Environment::default()));
    }

    #[test]
    fn istios_variables_are_read_as_istio_reads_them() {
        let all = read(&[
            ("SECRET_TTL", "1h30m"),
            ("SECRET_GRACE_PERIOD_RATIO", "0.25"),
            ("SECRET_GRACE_PERIOD_RATIO_JITTER", ".01"),
            ("WORKLOAD_RSA_KEY_SIZE", "3072"),
        ]);
        let renewal = Renewal { grace: 250_000, jitter: 10_000 };
        let ttl = Some(Duration::from_secs(5400));
        assert_eq!(all, Ok(Environment { ttl, key_type: Some(KeyType::Rsa3072), renewal }));
        let key = |variables: &[(&str, &str)]| read(variables).unwrap().key_type;
        let (size, algorithm) = (("WORKLOAD_RSA_KEY_SIZE", "4096"), ("ECC_SIGNATURE_ALGORITHM", "ECDSA"));
        let (p256, p384) = (("ECC_CURVE", "P256"), ("ECC_CURVE", "P384"));
        assert_eq!(key(&[size, algorithm]), Some(KeyType::EcdsaP256), "ECDSA goes before RSA");
        assert_eq!(key(&[size, algorithm, p384]), Some(KeyType::EcdsaP384));
        assert_eq!(key(&[size, p384]), Some(KeyType::Rsa4096), "a curve alone is no algorithm");
        assert_eq!((key(&[p384]), key(&[p256])), (Some(KeyType::EcdsaP384), Some(KeyType::EcdsaP256)));
    }

    #[test]
    fn every_variable_that_cannot_be_used_is_named() {
        for (name, text) in [
            ("SECRET_TTL", "24"),
            ("SECRET_TTL", "1d"),
            ("SECRET_TTL", "0s"),
            ("SECRET_TTL", "1500ms"),
            ("SECRET_GRACE_PERIOD_RATIO", "1"),
            ("SECRET_GRACE_PERIOD_RATIO", "0"),
            ("SECRET_GRACE_PERIOD_RATIO", "half"),
            ("SECRET_GRACE_PERIOD_RATIO_JITTER", "0.6"),
            ("SECRET_GRACE_PERIOD_RATIO_JITTER", "-0.1"),
            ("WORKLOAD_RSA_KEY_SIZE", "1024"),
            ("ECC_SIGNATURE_ALGORITHM", "RSA"),
            ("ECC_CURVE", "P521"),
        ] {
            let wrong = read(&[(name, text)]).unwrap_err();
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(
                wrong[0].starts_with(&format!("{name}: \"{text}\" is")) && wrong[0].contains("; write"),
                "{wrong:?}"
            );
        }
        assert_eq!(
            read(&[("SECRET_TTL", "x"), ("ECC_CURVE", "x"), ("WORKLOAD_RSA_KEY_SIZE", "x")]).unwrap_err().len(),
            3
        );
    }

    #[test]
    fn a_renewal_has_its_window() {
        let life = Duration::from_secs(1000);
        let window = |grace, jitter| {
            let (from, until) = Renewal { grace, jitter }.window(life);
            (from.as_secs(), until.as_secs())
        };
        assert_eq!(window(500_000, 50_000), (450, 550));
        assert_eq!(window(250_000, 10_000), (740, 760));
        assert_eq!(window(500_000, 500_000), (50, 950), "never at once, never at the end");
        assert_eq!(Renewal::default().window(Duration::MAX).0, Duration::MAX / 1000 * 450, "no overflow");
    }
}
