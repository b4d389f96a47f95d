//! istiod's environment variables for lifetimes and its root, under the same names. Flags and files take precedence.

use std::time::Duration;

use portcullis_ca::DefaultLifetimes;
use portcullis_identity::{KeyType, TrustDomain};
use portcullis_istio::{IstiodVariables, VariableError};
use portcullis_tls::Clock;

use crate::commands::values::{key_type, ttl};
use crate::exit::{Exit, Failure};

/// Ten years, as Istio's own root.
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How a new root is made.
#[derive(Debug, clap::Args)]
pub(super) struct NewRoot {
    /// How long a new root is valid, such as 3650d [default: $CITADEL_SELF_SIGNED_CA_CERT_TTL, or ten years]
    #[arg(long, value_name = "TTL", value_parser = ttl)]
    root_ttl: Option<Duration>,
    /// Key type of a new root and its intermediate
    /// [default: RSA with $CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE bits, or ecdsa-p256]
    #[arg(long, value_name = "KIND", value_parser = key_type())]
    key_type: Option<KeyType>,
}

impl NewRoot {
    /// Generates the root, and prints the warning about its key type, if any.
    pub(super) fn make(&self, trust_domain: &TrustDomain) -> Result<portcullis_ca::Root, Failure> {
        let (ttl, kind) = self.resolve(&environment()).map_err(bad_variable)?;
        if let Some(warning) = kind.warning() {
            crate::output::note(&format!("warning: {kind}: {warning}"));
        }
        portcullis_ca::Root::generate_with(kind, trust_domain, ttl, &Clock::system())
            .map_err(|error| Failure::new(Exit::Failure, error))
    }

    fn resolve(
        &self,
        variables: &IstiodVariables<impl Fn(&str) -> Option<String>>,
    ) -> Result<(Duration, KeyType), VariableError> {
        let ttl = match self.root_ttl {
            Some(ttl) => Some(ttl),
            None => variables.root_lifetime()?,
        };
        let kind = match self.key_type {
            Some(kind) => Some(kind),
            None => variables.root_key_type()?,
        };
        Ok((ttl.unwrap_or(ROOT_TTL), kind.unwrap_or_default()))
    }
}

/// Default lifetimes of workload certificates, where no file sets any.
pub(super) fn default_lifetimes() -> Result<DefaultLifetimes, Failure> {
    default_lifetimes_of(&environment()).map_err(bad_variable)
}

fn default_lifetimes_of(
    variables: &IstiodVariables<impl Fn(&str) -> Option<String>>,
) -> Result<DefaultLifetimes, VariableError> {
    Ok(DefaultLifetimes { ttl: variables.workload_lifetime()?, max_ttl: variables.max_workload_lifetime()? })
}

fn environment() -> IstiodVariables<impl Fn(&str) -> Option<String>> {
    IstiodVariables::new(|name| std::env::var(name).ok())
}

fn bad_variable(error: VariableError) -> Failure {
    Failure::message(Exit::BadConfig, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &'static [(&'static str, &'static str)]) -> IstiodVariables<impl Fn(&str) -> Option<String>> {
        IstiodVariables::new(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn lifetimes_are_those_of_istiod() {
        assert_eq!(default_lifetimes_of(&of(&[])), Ok(DefaultLifetimes::default()));
        assert_eq!(default_lifetimes_of(&of(&[("DEFAULT_WORKLOAD_CERT_TTL", "")])), Ok(DefaultLifetimes::default()));
        let both = of(&[("DEFAULT_WORKLOAD_CERT_TTL", "1h30m"), ("MAX_WORKLOAD_CERT_TTL", "2160h")]);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(
            default_lifetimes_of(&both),
            Ok(DefaultLifetimes { ttl: seconds(5400), max_ttl: seconds(2160 * 3600) })
        );
        let wrong = default_lifetimes_of(&of(&[("MAX_WORKLOAD_CERT_TTL", "90d")])).unwrap_err().to_string();
        assert!(wrong.starts_with("MAX_WORKLOAD_CERT_TTL: \"90d\" is not"), "{wrong}");
        default_lifetimes_of(&of(&[("DEFAULT_WORKLOAD_CERT_TTL", "59s")])).unwrap_err();
    }

    #[test]
    fn a_flag_goes_before_a_variable_and_that_before_the_default() {
        let none = NewRoot { root_ttl: None, key_type: None };
        assert_eq!(none.resolve(&of(&[])), Ok((ROOT_TTL, KeyType::EcdsaP256)));
        let set = of(&[("CITADEL_SELF_SIGNED_CA_CERT_TTL", "48h"), ("CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE", "3072")]);
        assert_eq!(none.resolve(&set), Ok((Duration::from_secs(48 * 3600), KeyType::Rsa3072)));
        let flags = NewRoot { root_ttl: Some(Duration::from_secs(3600)), key_type: Some(KeyType::Ed25519) };
        assert_eq!(flags.resolve(&set), Ok((Duration::from_secs(3600), KeyType::Ed25519)));
        let wrong = none.resolve(&of(&[("CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE", "1024")])).unwrap_err().to_string();
        assert!(wrong.contains("write 2048, 3072 or 4096"), "{wrong}");
    }
}
