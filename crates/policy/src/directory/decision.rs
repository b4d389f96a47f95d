//! Decides how each endpoint is reached.
//!
//! A DestinationRule with `tls` decides for all endpoints of its port. Without one, an endpoint of the mesh gets mTLS if it has a
//! sidecar and its own PeerAuthentication mode, for its own port, is not DISABLE. Istio also asks the policies of the service's
//! namespace, and so sends plaintext to a STRICT workload in a namespace with DISABLE; here only the endpoint counts.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_identity::{ExpectedIds, SpiffeId, TrustDomain};

use crate::decided::Decided;
use crate::directory::destination_rule::{ClientTls, ServerCheck};
use crate::directory::host::HostPattern;
use crate::directory::resource::RuleRef;
use crate::directory::service_entry::{Location, ServiceEntry};
use crate::directory::transport::{
    MtlsReason, NoIdentities, OriginationMode, PlaintextReason, TlsOrigination, Transport,
};
use crate::mode::Mode;

type Identities = Result<ExpectedIds, NoIdentities>;

/// The identities of one ServiceEntry's endpoints, by service account.
pub(super) struct Accounts {
    known: HashMap<Arc<str>, Identities>,
    /// Of an endpoint without an account: the SPIFFE IDs among the subjectAltNames of the entry.
    unnamed: Identities,
}

impl Accounts {
    /// Of these accounts, in the namespace of the entry, under each name of the mesh's trust domain.
    pub(super) fn new<'a>(
        entry: &ServiceEntry,
        trust_domains: &[TrustDomain],
        accounts: impl Iterator<Item = &'a Arc<str>>,
    ) -> Self {
        let named = spiffe_ids(&entry.subject_alt_names);
        let mut known = HashMap::new();
        for account in accounts {
            known.entry(Arc::clone(account)).or_insert_with(|| {
                let id = |domain| SpiffeId::for_workload(domain, &entry.meta.namespace, account).ok();
                expected(trust_domains.iter().filter_map(id).chain(named.iter().cloned()))
            });
        }
        Self { known, unnamed: expected(named) }
    }

    fn of(&self, account: Option<&Arc<str>>) -> Identities {
        account.and_then(|account| self.known.get(account)).unwrap_or(&self.unnamed).clone()
    }
}

fn spiffe_ids(names: &[String]) -> Vec<SpiffeId> {
    let parsed = names.iter().filter_map(|name| SpiffeId::parse(name).ok());
    parsed.filter(|id| !id.path().is_empty()).collect()
}

fn expected(ids: impl IntoIterator<Item = SpiffeId>) -> Identities {
    ExpectedIds::new(ids).map_err(|_| NoIdentities::Undeclared)
}

/// What the endpoints of one port have in common.
pub(super) struct PortDecision<'e> {
    location: Location,
    rule: Rule,
    sni: Arc<str>,
    accounts: &'e Accounts,
}

/// What the DestinationRules say about one port.
enum Rule {
    /// Nothing: automatic mTLS.
    Auto,
    Disable(RuleRef),
    Originate(Arc<TlsOrigination>),
    /// The identities are those of the rule, if it has some.
    IstioMutual {
        rule: RuleRef,
        identities: Option<Identities>,
    },
}

/// A port of a host, or of a subset of it.
pub(super) struct PortName<'e> {
    pub(super) host: &'e HostPattern,
    pub(super) number: u16,
    pub(super) subset: Option<&'e str>,
}

/// An endpoint, as far as it decides how it is reached.
pub(super) struct EndpointFacts<'e> {
    pub(super) account: Option<&'e Arc<str>>,
    /// The mode of its own port; `None` if it has no sidecar.
    pub(super) mode: Option<Arc<Decided>>,
}

impl<'e> PortDecision<'e> {
    pub(super) fn new(
        entry: &ServiceEntry,
        name: &PortName<'_>,
        tls: Option<(&Arc<ClientTls>, &RuleRef)>,
        accounts: &'e Accounts,
    ) -> Self {
        let PortName { host, number, subset } = name;
        let own_sni = match tls.map(|(tls, _)| &**tls) {
            Some(ClientTls::IstioMutual { sni, .. }) => sni.clone(),
            _ => None,
        };
        let sni = own_sni.unwrap_or_else(|| format!("outbound_.{number}_.{}_.{host}", subset.unwrap_or("")).into());
        Self { location: entry.location, rule: Rule::new(entry, host, tls), sni, accounts }
    }

    /// Whether the mode of the endpoints decides.
    pub(super) const fn asks_mode(&self) -> bool {
        matches!((&self.rule, self.location), (Rule::Auto, Location::MeshInternal))
    }

    /// How an endpoint is reached.
    pub(super) fn transport(&self, endpoint: EndpointFacts<'_>) -> Transport {
        let EndpointFacts { account, mode } = endpoint;
        let mtls = |identities, by| Transport::Mtls { identities, sni: Arc::clone(&self.sni), by };
        match (&self.rule, self.location, mode) {
            (Rule::Disable(rule), ..) => Transport::Plaintext(PlaintextReason::RuleDisable { rule: rule.clone() }),
            (Rule::Originate(origination), ..) => Transport::Originate(Arc::clone(origination)),
            (Rule::IstioMutual { rule, identities }, ..) => {
                let identities = identities.clone().unwrap_or_else(|| self.accounts.of(account));
                mtls(identities, MtlsReason::Rule { rule: rule.clone() })
            }
            (Rule::Auto, Location::MeshExternal, _) => Transport::Plaintext(PlaintextReason::External),
            (Rule::Auto, Location::MeshInternal, None) => Transport::Plaintext(PlaintextReason::NoSidecar),
            (Rule::Auto, Location::MeshInternal, Some(policy)) if policy.mode == Mode::Disable => {
                Transport::Plaintext(PlaintextReason::ModeDisable { policy })
            }
            (Rule::Auto, Location::MeshInternal, Some(policy)) => {
                mtls(self.accounts.of(account), MtlsReason::Auto { policy })
            }
        }
    }
}

impl Rule {
    fn new(entry: &ServiceEntry, host: &HostPattern, tls: Option<(&Arc<ClientTls>, &RuleRef)>) -> Self {
        let Some((tls, rule)) = tls else { return Self::Auto };
        let rule = rule.clone();
        let originate = |mode: OriginationMode, server: &ServerCheck, rule: RuleRef| {
            let ServerCheck { ca, subject_alt_names, sni } = server;
            let names = if subject_alt_names.is_empty() { &entry.subject_alt_names } else { subject_alt_names };
            let sni = sni.as_ref().or_else(|| host.name());
            let (ca, sni) = (ca.clone(), sni.cloned());
            Self::Originate(Arc::new(TlsOrigination { mode, ca, subject_alt_names: names.clone(), sni, rule }))
        };
        match &**tls {
            ClientTls::Disable => Self::Disable(rule),
            ClientTls::Simple(server) => originate(OriginationMode::Simple, server, rule),
            ClientTls::Mutual { certificate, key, server } => {
                let mode = OriginationMode::Mutual { certificate: Arc::clone(certificate), key: Arc::clone(key) };
                originate(mode, server, rule)
            }
            ClientTls::IstioMutual { subject_alt_names, .. } => {
                let replaced = (!subject_alt_names.is_empty()).then(|| {
                    let ids = ExpectedIds::new(spiffe_ids(subject_alt_names));
                    ids.map_err(|_| NoIdentities::NotSpiffe { rule: rule.clone() })
                });
                Self::IstioMutual { rule, identities: replaced }
            }
        }
    }
}
