//! Trust bundles from the CA.

use std::collections::BTreeSet;

use portcullis_identity::TrustDomain;
use portcullis_rpc::bundles::GetTrustBundlesResponse;
use portcullis_tls::IdentityRules;
use rustls_pki_types::CertificateDer;

use crate::error::{AnswerError, clean};

/// The most roots of one domain.
pub(super) const MAX_ROOTS: usize = 64;
/// The most domains in an answer.
const MAX_DOMAINS: usize = 256;

/// Roots of foreign trust domains.
pub type Foreign = Vec<(TrustDomain, Vec<CertificateDer<'static>>)>;

/// The bundles of an answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Bundles {
    pub(super) own: Vec<CertificateDer<'static>>,
    pub(super) foreign: Foreign,
}

impl Bundles {
    /// Parses an answer. The roots themselves are validated later, with the certificate.
    pub(super) fn read(answer: GetTrustBundlesResponse, rules: &IdentityRules) -> Result<Self, AnswerError> {
        let wrong = |what: String| AnswerError::Bundles(what);
        if answer.bundles.len() > MAX_DOMAINS {
            return Err(wrong(format!("{} domains, at most {MAX_DOMAINS} are read", answer.bundles.len())));
        }
        let (mut bundles, mut seen) = (Self::default(), BTreeSet::new());
        for bundle in answer.bundles {
            let shown = clean(&bundle.trust_domain);
            let domain = TrustDomain::parse(&bundle.trust_domain)
                .map_err(|error| wrong(format!("{shown} is no trust domain: {error}")))?;
            if bundle.roots.is_empty() || bundle.roots.len() > MAX_ROOTS {
                return Err(wrong(format!("{} roots for {shown}; one to {MAX_ROOTS} are taken", bundle.roots.len())));
            }
            if !seen.insert(domain.clone()) {
                return Err(wrong(format!("{shown} is there twice")));
            }
            let roots = bundle.roots.into_iter().map(CertificateDer::from).collect();
            if domain == rules.trust_domain {
                bundles.own = roots;
            } else if !rules.aliases.contains(&domain) {
                // An alias always uses our own bundle.
                bundles.foreign.push((domain, roots));
            }
        }
        if bundles.own.is_empty() {
            return Err(wrong(format!("none is for our own trust domain {}", rules.trust_domain)));
        }
        Ok(bundles)
    }

    /// The foreign ones, with those that the configuration names: where both have one, the configuration's holds.
    pub(super) fn foreign_with(&self, configured: &Foreign) -> Foreign {
        merge(configured, &self.foreign)
    }
}

/// All of the first, and what the second has beyond it.
pub(crate) fn merge(first: &Foreign, second: &Foreign) -> Foreign {
    let known: BTreeSet<&TrustDomain> = first.iter().map(|(domain, _)| domain).collect();
    let beyond = second.iter().filter(|(domain, _)| !known.contains(domain));
    first.iter().chain(beyond).cloned().collect()
}

#[cfg(test)]
mod tests {
    use portcullis_identity::SpiffeId;
    use portcullis_identity::leaf::Compat;
    use portcullis_rpc::bundles::TrustBundle;
    use portcullis_tls::MinVersion;

    use super::*;

    fn rules() -> IdentityRules {
        let domain = |name| TrustDomain::parse(name).unwrap();
        IdentityRules {
            trust_domain: domain("cluster.local"),
            aliases: vec![domain("old.local")],
            expected_own_id: SpiffeId::parse("spiffe://cluster.local/ns/a/sa/b").unwrap(),
            compat: Compat::default(),
            min_version: MinVersion::default(),
        }
    }

    fn answer(bundles: &[(&str, usize)]) -> Result<Bundles, AnswerError> {
        let bundle = |(domain, roots): &(&str, usize)| TrustBundle {
            trust_domain: (*domain).to_owned(),
            roots: (0..*roots).map(|n| vec![u8::try_from(n).unwrap()]).collect(),
        };
        let bundles = bundles.iter().map(bundle).collect();
        Bundles::read(GetTrustBundlesResponse { bundles, refresh_hint_seconds: 0 }, &rules())
    }

    #[test]
    fn our_own_is_needed_an_alias_ignored_and_nonsense_refused() {
        let read = answer(&[("cluster.local", 2), ("old.local", 1), ("partner.test", 1)]).unwrap();
        assert_eq!((read.own.len(), read.foreign.len()), (2, 1));
        let wrong: [&[(&str, usize)]; 6] = [
            &[],
            &[("partner.test", 1)],
            &[("cluster.local", 0)],
            &[("cluster.local", 65)],
            &[("cluster.local", 1), ("cluster.local", 1)],
            &[("cluster.local", 1), ("Not A Domain\u{7}", 1)],
        ];
        for bundles in wrong {
            let error = answer(bundles).unwrap_err();
            assert_eq!(error.reason(), "bundles", "{bundles:?}");
            assert!(!error.to_string().contains('\u{7}'));
        }
    }

    #[test]
    fn what_the_configuration_says_of_a_domain_holds() {
        let read = answer(&[("cluster.local", 1), ("partner.test", 1), ("third.test", 1)]).unwrap();
        let configured = vec![(TrustDomain::parse("partner.test").unwrap(), vec![CertificateDer::from(vec![9])])];
        let merged = read.foreign_with(&configured);
        assert_eq!(merged.len(), 2);
        assert!(merged.contains(&configured[0]));
    }
}
