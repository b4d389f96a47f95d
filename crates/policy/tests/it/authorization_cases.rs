//! Every row about AuthorizationPolicy of the case files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::{Authorization, Authorizer, Facts};
use portcullis_policy::{Evaluation, MeshSettings, PolicySet, Source};
use serde_yaml::Value;

use crate::cases::{all_pass_in, source};

fn strings(value: &Value) -> Vec<String> {
    value.as_sequence().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn ip(value: &Value) -> Option<IpAddr> {
    value.as_str().map(|text| text.parse().unwrap())
}

struct Case {
    set: PolicySet,
    mesh: MeshSettings,
    namespace: String,
    labels: BTreeMap<String, String>,
    peer: Option<SpiffeId>,
}

impl Case {
    fn new(row: &Value) -> Result<Self, String> {
        let policies = row["policies"].as_sequence().unwrap();
        let named = |(n, policy)| Source { file: format!("{n}.yaml"), ..source(policy) };
        let loaded = PolicySet::load(&policies.iter().enumerate().map(named).collect::<Vec<_>>());
        if !loaded.errors.is_empty() {
            return Err(format!("{:?}", loaded.errors));
        }
        let own = row["trustDomain"].as_str().unwrap_or("cluster.local").to_owned();
        let trust_domains = [own].into_iter().chain(strings(&row["trustDomainAliases"])).collect();
        let root_namespace = row["rootNamespace"].as_str().unwrap().to_owned();
        let labels = row["workload"]["labels"].as_mapping();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Ok(Self {
            set: loaded.set,
            mesh: MeshSettings { root_namespace, trust_domains, ..MeshSettings::default() },
            namespace: row["workload"]["namespace"].as_str().unwrap().to_owned(),
            labels: labels.map(|map| map.iter().map(|(k, v)| (text(k), text(v))).collect()).unwrap_or_default(),
            peer: row["connection"]["peer"].as_str().map(|id| SpiffeId::parse(id).unwrap()),
        })
    }

    fn authorizer(&self, evaluation: Evaluation) -> Authorizer {
        Authorizer::new(&self.set, &self.mesh, &self.namespace, &self.labels, evaluation)
    }

    fn facts<'c>(&'c self, row: &'c Value) -> Facts<'c> {
        let connection = &row["connection"];
        let source = ip(&connection["sourceIp"]).unwrap();
        Facts {
            peer: self.peer.as_ref(),
            source,
            remote: ip(&connection["remoteIp"]).unwrap_or(source),
            destination: ip(&connection["destinationIp"]).unwrap_or_else(|| "10.9.9.9".parse().unwrap()),
            port: u16::try_from(connection["destinationPort"].as_u64().unwrap()).unwrap(),
            sni: connection["sni"].as_str(),
        }
    }
}

fn check(row: &Value) -> Result<(), String> {
    let case = Case::new(row)?;
    let facts = case.facts(row);
    let (enforced, dry_run) = (case.authorizer(Evaluation::Enforced), case.authorizer(Evaluation::DryRun));
    let answer = enforced.authorize(&facts);
    if answer.is_allowed() != row["allow"].as_bool().unwrap() {
        return Err(format!("{answer:?}"));
    }
    let matched = match answer {
        Authorization::Allowed(matched) | Authorization::Denied(matched) => Some(matched),
        Authorization::Unrestricted | Authorization::NotAllowed(_) => None,
    };
    if let Some(expected) = row.get("decidedBy") {
        let expected = expected
            .as_mapping()
            .map(|by| (by["namespace"].as_str().unwrap(), by["name"].as_str().unwrap(), by["rule"].as_u64()));
        let got = matched.map(|by| (by.policy.namespace.as_str(), by.policy.name.as_str(), Some(by.rule as u64)));
        if got != expected.filter(|by| by.2.is_some()) {
            return Err(format!("decided by {got:?}, expected {expected:?}"));
        }
    }
    if let Some(would) = row.get("dryRun") {
        let would = would["would"].as_str().unwrap();
        let got = if dry_run.authorize(&facts).is_allowed() { "allow" } else { "deny" };
        if got != would {
            return Err(format!("the dry run would {got}, expected {would}"));
        }
    }
    Ok(())
}

#[test]
fn every_case_of_the_specification() {
    all_pass_in(include_str!("../data/peerauth-cases.yaml"), "authz", 23, check);
}

const TABLE: &str = include_str!("../data/authorization-cases.yaml");

#[test]
fn every_case_of_the_table() {
    all_pass_in(TABLE, "authz", 843, check);
}

#[test]
fn every_invalid_document_of_the_table() {
    all_pass_in(TABLE, "invalid", 286, |row| {
        let loaded = PolicySet::load(&[source(&row["document"])]);
        let found: Vec<_> = loaded.errors.iter().map(|error| (error.reason, error.field.as_str())).collect();
        let expected = (row["reason"].as_str().unwrap(), row["field"].as_str().unwrap());
        if found.contains(&expected) && loaded.set.authorization_policies().is_empty() {
            Ok(())
        } else {
            Err(format!("{found:?}, expected {expected:?}"))
        }
    });
}

#[test]
fn every_warning_of_the_table() {
    all_pass_in(TABLE, "warnings", 104, |row| {
        let loaded = PolicySet::load(&[source(&row["document"])]);
        let found: Vec<_> = loaded.warnings.iter().map(|found| (found.reason, found.field.as_str())).collect();
        let expected = (row["warning"].as_str().unwrap(), row["field"].as_str().unwrap());
        if found.contains(&expected) && loaded.errors.is_empty() {
            Ok(())
        } else {
            Err(format!("{found:?} {:?}, expected {expected:?}", loaded.errors))
        }
    });
}

/// A DENY policy must not lose its effect by a reference that is none.
#[test]
fn references_that_are_none_are_errors() {
    for (spec, reason) in [
        ("{targetRefs: null, rules: [{}]}", "wrong-type"),
        ("{targetRefs: no-such, rules: [{}]}", "wrong-type"),
        ("{targetRefs: [x], rules: [{}]}", "wrong-type"),
        ("{targetRef: null, rules: [{}]}", "wrong-type"),
        ("{targetRef: {}, rules: [{}]}", "missing-field"),
        ("{targetRefs: [{kind: Gateway}], rules: [{}]}", "missing-field"),
        (
            "{rules: [{from: [{source: {serviceAccounts: [a]}}], when: [{key: source.principal, values: [x]}]}]}",
            "service-accounts-not-alone",
        ),
        ("{rules: [{from: [{source: {ipBlocks: ['::ffff:0:0/90']}}]}]}", "bad-ip-block"),
    ] {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: b}}\nspec: {spec}\n"
        );
        let loaded = PolicySet::load(&[Source { file: "a.yaml".to_owned(), text: text.into_bytes() }]);
        assert!(loaded.errors.iter().any(|error| error.reason == reason), "{spec}: {:?}", loaded.errors);
    }
    let none = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: b}\nspec: {targetRefs: []}\n";
    let loaded = PolicySet::load(&[Source { file: "a.yaml".to_owned(), text: none.into() }]);
    assert!(loaded.errors.is_empty() && !loaded.set.authorization_policies()[0].for_targets);
}
