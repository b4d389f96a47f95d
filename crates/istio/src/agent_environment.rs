//! The environment variables of istio-agent, under the same names (`pilot/cmd/pilot-agent/options`). They apply where
//! neither the configuration file nor an IstioOperator among the policies sets a value.

use std::ops::RangeInclusive;
use std::time::Duration;

use portcullis_identity::KeyType;

use crate::go_duration::go_duration;
use crate::renewal::{MAX_GRACE, MIN_GRACE, Renewal, WHOLE};
use crate::variable::{Variable, VariableError};

const SECRET_TTL: Variable = Variable {
    name: "SECRET_TTL",
    expected: "is not a lifetime; write a Go duration of at most a year, in whole seconds: 24h, 1h30m",
};
const GRACE_PERIOD_RATIO: Variable = Variable {
    name: "SECRET_GRACE_PERIOD_RATIO",
    expected: "is not a fraction of the lifetime; write a number from 0.05 to 0.95",
};
const GRACE_PERIOD_RATIO_JITTER: Variable = Variable {
    name: "SECRET_GRACE_PERIOD_RATIO_JITTER",
    expected: "is not a fraction of the lifetime; write a number from 0 to 0.5",
};
const RSA_KEY_SIZE: Variable =
    Variable { name: "WORKLOAD_RSA_KEY_SIZE", expected: "is not a supported RSA key size; write 2048, 3072 or 4096" };
const ECC_SIGNATURE_ALGORITHM: Variable =
    Variable { name: "ECC_SIGNATURE_ALGORITHM", expected: "is not a supported elliptic-curve algorithm; write ECDSA" };
const ECC_CURVE: Variable = Variable { name: "ECC_CURVE", expected: "is not a supported curve; write P256 or P384" };

/// The variables that have a meaning for `identity.ca`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AgentEnvironment {
    /// `SECRET_TTL`: the lifetime that is requested.
    pub ttl: Option<Duration>,
    /// `WORKLOAD_RSA_KEY_SIZE`, or `ECC_SIGNATURE_ALGORITHM` with `ECC_CURVE`.
    pub key_type: Option<KeyType>,
    /// `SECRET_GRACE_PERIOD_RATIO` and `SECRET_GRACE_PERIOD_RATIO_JITTER`.
    pub renewal: Renewal,
}

impl AgentEnvironment {
    /// Reads the variables; an empty one counts as unset.
    ///
    /// # Errors
    /// Every variable that cannot be used. Istio would log it and use its default.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<VariableError>> {
        let mut reader = VariableReader { lookup, errors: Vec::new() };
        let ttl = reader.read(SECRET_TTL, |text| go_duration(text).filter(is_usable));
        let default = Renewal::default();
        let grace = reader.fraction(GRACE_PERIOD_RATIO, MIN_GRACE..=MAX_GRACE).unwrap_or(default.grace);
        let jitter = reader.fraction(GRACE_PERIOD_RATIO_JITTER, 0..=WHOLE / 2).unwrap_or(default.jitter);
        let rsa = reader.read(RSA_KEY_SIZE, |text| KeyType::rsa(text.parse().ok()?));
        let ecdsa = reader.read(ECC_SIGNATURE_ALGORITHM, |text| (text == "ECDSA").then_some(()));
        let curve = reader.read(ECC_CURVE, curve);
        let key_type = match (ecdsa, rsa) {
            // As in Istio, the algorithm for elliptic curves takes precedence over the size for RSA.
            (Some(()), _) => Some(curve.unwrap_or_default()),
            (None, Some(rsa)) => Some(rsa),
            // In Istio a curve alone has no effect, since its default is RSA; here the default is ECDSA.
            (None, None) => curve,
        };
        let read = Self { ttl, key_type, renewal: Renewal { grace, jitter } };
        if reader.errors.is_empty() { Ok(read) } else { Err(reader.errors) }
    }
}

/// Reads variables and collects the errors.
struct VariableReader<F> {
    lookup: F,
    errors: Vec<VariableError>,
}

impl<F: Fn(&str) -> Option<String>> VariableReader<F> {
    fn read<T>(&mut self, variable: Variable, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        variable.read(&self.lookup, parse).unwrap_or_else(|error| {
            self.errors.push(error);
            None
        })
    }

    fn fraction(&mut self, variable: Variable, range: RangeInclusive<u32>) -> Option<u32> {
        self.read(variable, |text| millionths(text).filter(|part| range.contains(part)))
    }
}

fn is_usable(ttl: &Duration) -> bool {
    ttl.subsec_nanos() == 0 && !ttl.is_zero() && *ttl <= Duration::from_secs(365 * 24 * 3600)
}

fn curve(text: &str) -> Option<KeyType> {
    match text {
        "P256" => Some(KeyType::EcdsaP256),
        "P384" => Some(KeyType::EcdsaP384),
        _ => None,
    }
}

/// A decimal number such as `0.5` or `1`, in millionths, rounded down.
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

    fn read(variables: &[(&str, &str)]) -> Result<AgentEnvironment, Vec<VariableError>> {
        AgentEnvironment::read(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn unset_and_empty_variables_change_nothing() {
        assert_eq!(read(&[]), Ok(AgentEnvironment::default()));
        assert_eq!(read(&[("SECRET_TTL", ""), ("WORKLOAD_RSA_KEY_SIZE", "")]), Ok(AgentEnvironment::default()));
    }

    #[test]
    fn variables_are_read_as_istio_reads_them() {
        let all = read(&[
            ("SECRET_TTL", "1h30m"),
            ("SECRET_GRACE_PERIOD_RATIO", "0.25"),
            ("SECRET_GRACE_PERIOD_RATIO_JITTER", ".01"),
            ("WORKLOAD_RSA_KEY_SIZE", "3072"),
        ]);
        let renewal = Renewal { grace: 250_000, jitter: 10_000 };
        let ttl = Some(Duration::from_secs(5400));
        assert_eq!(all, Ok(AgentEnvironment { ttl, key_type: Some(KeyType::Rsa3072), renewal }));
        let key = |variables: &[(&str, &str)]| read(variables).unwrap().key_type;
        let (size, algorithm) = (("WORKLOAD_RSA_KEY_SIZE", "4096"), ("ECC_SIGNATURE_ALGORITHM", "ECDSA"));
        let (p256, p384) = (("ECC_CURVE", "P256"), ("ECC_CURVE", "P384"));
        assert_eq!(key(&[size, algorithm]), Some(KeyType::EcdsaP256), "ECDSA takes precedence over RSA");
        assert_eq!(key(&[size, algorithm, p384]), Some(KeyType::EcdsaP384));
        assert_eq!(key(&[size, p384]), Some(KeyType::Rsa4096), "a curve alone selects no algorithm");
        assert_eq!((key(&[p384]), key(&[p256])), (Some(KeyType::EcdsaP384), Some(KeyType::EcdsaP256)));
    }

    #[test]
    fn every_unusable_variable_is_an_error() {
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
            let errors = read(&[(name, text)]).unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            let error = errors[0].to_string();
            assert!(error.starts_with(&format!("{name}: \"{text}\" is not")) && error.contains("; write"), "{error}");
        }
        assert_eq!(
            read(&[("SECRET_TTL", "x"), ("ECC_CURVE", "x"), ("WORKLOAD_RSA_KEY_SIZE", "x")]).unwrap_err().len(),
            3
        );
    }
}
