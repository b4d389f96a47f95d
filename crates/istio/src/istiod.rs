//! istiod's environment variables for lifetimes and its own root, under the same names.

use std::time::Duration;

use portcullis_identity::KeyType;

use crate::go_duration::go_duration;
use crate::variable::{Variable, VariableError};

const MIN_LIFETIME: Duration = Duration::from_secs(60);
const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The variables of istiod; each is read when it is asked for, since a flag makes it irrelevant.
#[derive(Clone, Copy, Debug)]
pub struct IstiodVariables<F>(F);

impl<F: Fn(&str) -> Option<String>> IstiodVariables<F> {
    /// Looks variables up with `lookup`.
    pub const fn new(lookup: F) -> Self {
        Self(lookup)
    }

    /// `CITADEL_SELF_SIGNED_CA_CERT_TTL`: the lifetime of a new root.
    ///
    /// # Errors
    /// If the value cannot be used.
    pub fn root_lifetime(&self) -> Result<Option<Duration>, VariableError> {
        self.lifetime("CITADEL_SELF_SIGNED_CA_CERT_TTL")
    }

    /// `CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE`: the key of a new root.
    ///
    /// # Errors
    /// If the value cannot be used.
    pub fn root_key_type(&self) -> Result<Option<KeyType>, VariableError> {
        let variable = Variable {
            name: "CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE",
            expected: "is not a supported RSA key size; write 2048, 3072 or 4096",
        };
        variable.read(&self.0, |text| KeyType::rsa(text.parse().ok()?))
    }

    /// `DEFAULT_WORKLOAD_CERT_TTL`: the lifetime of a certificate if the request names none.
    ///
    /// # Errors
    /// If the value cannot be used.
    pub fn workload_lifetime(&self) -> Result<Option<Duration>, VariableError> {
        self.lifetime("DEFAULT_WORKLOAD_CERT_TTL")
    }

    /// `MAX_WORKLOAD_CERT_TTL`: the longest lifetime of a certificate.
    ///
    /// # Errors
    /// If the value cannot be used.
    pub fn max_workload_lifetime(&self) -> Result<Option<Duration>, VariableError> {
        self.lifetime("MAX_WORKLOAD_CERT_TTL")
    }

    fn lifetime(&self, name: &'static str) -> Result<Option<Duration>, VariableError> {
        let expected = "is not a lifetime; write a Go duration of at least a minute, in whole seconds: 24h, 1h30m";
        let is_usable = |ttl: &Duration| (MIN_LIFETIME..=MAX_LIFETIME).contains(ttl) && ttl.subsec_nanos() == 0;
        Variable { name, expected }.read(&self.0, |text| go_duration(text).filter(is_usable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> IstiodVariables<impl Fn(&str) -> Option<String>> {
        IstiodVariables::new(move |asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn each_variable_is_read_under_istiods_name() {
        let hours = |hours: u64| Ok(Some(Duration::from_secs(hours * 3600)));
        assert_eq!(with("CITADEL_SELF_SIGNED_CA_CERT_TTL", "87600h").root_lifetime(), hours(87_600));
        assert_eq!(with("DEFAULT_WORKLOAD_CERT_TTL", "24h").workload_lifetime(), hours(24));
        assert_eq!(with("MAX_WORKLOAD_CERT_TTL", "2160h").max_workload_lifetime(), hours(2160));
        assert_eq!(with("CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE", "3072").root_key_type(), Ok(Some(KeyType::Rsa3072)));
        assert_eq!(with("MAX_WORKLOAD_CERT_TTL", "1h").workload_lifetime(), Ok(None));
        assert_eq!(with("DEFAULT_WORKLOAD_CERT_TTL", "").workload_lifetime(), Ok(None), "empty is unset");
    }

    #[test]
    fn a_value_that_cannot_be_used_is_an_error_with_the_name() {
        for value in ["59s", "90d", "1500ms", "24", "876001h"] {
            let error = with("DEFAULT_WORKLOAD_CERT_TTL", value).workload_lifetime().unwrap_err().to_string();
            assert!(error.starts_with(&format!("DEFAULT_WORKLOAD_CERT_TTL: \"{value}\" is not a lifetime")), "{error}");
        }
        let error = with("CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE", "1024").root_key_type().unwrap_err().to_string();
        assert!(error.contains("write 2048, 3072 or 4096"), "{error}");
    }
}
