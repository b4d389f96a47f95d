//! Every row of the table about the service directory: documents in, errors, warnings, transports and look-ups out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_policy::directory::{Choice, Client, Directory, Endpoint, Locality, Lookup, ServicePort, Transport};
use portcullis_policy::{Loaded, MeshSettings, PolicySet, Source};
use serde_yaml::{Mapping, Value};

use crate::cases::{all_pass_in, source};

const TABLE: &str = include_str!("../data/directory-cases.yaml");

/// How many rows each part has, so that none is lost.
const INVALID: usize = 156;
const ACCEPTED: usize = 27;
const FINDINGS: usize = 35;
const TRANSPORTS: usize = 79;
const LOOKUPS: usize = 31;

/// A document of the table: without an `apiVersion` or `metadata` it has the usual ones.
fn document(value: &Value) -> Value {
    let mut document = value.as_mapping().unwrap().clone();
    let version = match document["kind"].as_str().unwrap() {
        "PeerAuthentication" | "AuthorizationPolicy" => "security.istio.io/v1",
        _ => "networking.istio.io/v1",
    };
    document.entry("apiVersion".into()).or_insert_with(|| version.into());
    let metadata = document.entry("metadata".into()).or_insert_with(|| Mapping::new().into());
    let metadata = metadata.as_mapping_mut().unwrap();
    metadata.entry("name".into()).or_insert_with(|| "a".into());
    metadata.entry("namespace".into()).or_insert_with(|| "shop".into());
    document.into()
}

fn load<'v>(documents: impl IntoIterator<Item = &'v Value>) -> Loaded {
    let file = |(n, value)| Source { file: format!("{n}.yaml"), ..source(&document(value)) };
    PolicySet::load(&documents.into_iter().enumerate().map(file).collect::<Vec<_>>())
}

fn documents(row: &Value) -> &[Value] {
    row["documents"].as_sequence().unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_sequence().into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
}

/// The valid spec of its kind, changed by the row.
fn changed(row: &Value, valid: &Value) -> Value {
    let kind = row["kind"].as_str().unwrap();
    let mut spec = valid[kind].as_mapping().unwrap().clone();
    for name in texts(&row["without"]) {
        spec.remove(name).unwrap();
    }
    for (key, value) in row["with"].as_mapping().into_iter().flatten() {
        spec.insert(key.clone(), value.clone());
    }
    let mut document = Mapping::from_iter([("kind".into(), kind.into()), ("spec".into(), spec.into())]);
    if let Some(spec) = row.get("spec") {
        document.insert("spec".into(), spec.clone());
    }
    document.into()
}

fn valid_specs() -> Value {
    serde_yaml::from_str::<Value>(TABLE).unwrap()["valid"].clone()
}

#[test]
fn every_invalid_document() {
    let valid = valid_specs();
    all_pass_in(TABLE, "invalid", INVALID, |row| {
        let loaded = load([&changed(row, &valid)]);
        let found: Vec<_> = loaded.errors.iter().map(|error| (error.reason, error.field.as_str())).collect();
        let expected = [(row["reason"].as_str().unwrap(), row["field"].as_str().unwrap())];
        let set = &loaded.set;
        let kept = set.service_entries().len() + set.workload_entries().len() + set.destination_rules().len();
        if found == expected && kept == 0 && loaded.errors.iter().all(|error| error.line > 0) {
            Ok(())
        } else {
            Err(format!("{found:?}, expected {expected:?}"))
        }
    });
}

#[test]
fn every_valid_document() {
    let valid = valid_specs();
    all_pass_in(TABLE, "accepted", ACCEPTED, |row| {
        let loaded = load([&changed(row, &valid)]);
        let set = &loaded.set;
        let kept = set.service_entries().len() + set.workload_entries().len() + set.destination_rules().len();
        if loaded.errors.is_empty() && kept == 1 { Ok(()) } else { Err(format!("{:?}", loaded.errors)) }
    });
}

/// `reason FILE FIELD` of each finding of a whole set.
#[test]
fn every_finding_about_a_set() {
    all_pass_in(TABLE, "findings", FINDINGS, |row| {
        let loaded = load(documents(row));
        let shown = |found: &[portcullis_policy::Diagnostic]| -> Vec<String> {
            let one =
                |found: &portcullis_policy::Diagnostic| format!("{} {} {}", found.reason, found.file, found.field);
            found.iter().map(|found| one(found).trim_end().to_owned()).collect()
        };
        let (errors, warnings) = (shown(&loaded.errors), shown(&loaded.warnings));
        if errors == texts(&row["errors"]) && warnings == texts(&row["warnings"]) {
            Ok(())
        } else {
            Err(format!("{:#?} {:#?}", loaded.errors, loaded.warnings))
        }
    });
}

struct View {
    directory: Directory,
    reversed: Directory,
}

impl View {
    fn new(row: &Value) -> Result<Self, String> {
        let loaded = load(documents(row));
        if !loaded.errors.is_empty() {
            return Err(format!("{:?}", loaded.errors));
        }
        let client = &row["client"];
        let labels: BTreeMap<String, String> = client["labels"]
            .as_mapping()
            .map(|map| map.iter().map(|(k, v)| (k.as_str().unwrap().into(), v.as_str().unwrap().into())).collect())
            .unwrap_or_default();
        let locality = client["locality"].as_str().map(|text| Locality::parse(text).unwrap());
        let client = Client {
            namespace: client["namespace"].as_str().unwrap_or("shop"),
            labels: &labels,
            locality: locality.as_ref(),
        };
        let domains = texts(&row["trustDomains"]);
        let domains = if domains.is_empty() { vec!["cluster.local"] } else { domains };
        let mesh =
            MeshSettings { trust_domains: domains.into_iter().map(str::to_owned).collect(), ..MeshSettings::default() };
        // The order of documents never matters; file names follow it, so lines are compared without them.
        let reversed = load(documents(row).iter().rev());
        Ok(Self {
            directory: Directory::resolve(&loaded.set, &mesh, &client),
            reversed: Directory::resolve(&reversed.set, &mesh, &client),
        })
    }
}

/// `HOST:PORT[/SUBSET] ADDRESS:PORT TRANSPORT` of every endpoint.
fn lines(directory: &Directory) -> Vec<String> {
    let mut lines = Vec::new();
    for service in directory.services() {
        let subsets =
            service.subsets.iter().flat_map(|(name, ports)| ports.iter().map(move |port| (format!("/{name}"), port)));
        for (subset, port) in service.ports.iter().map(|port| (String::new(), port)).chain(subsets) {
            let name = format!("{}:{}{subset}", service.label(), port.number);
            lines.extend(port_lines(port).into_iter().map(|line| format!("{name} {line}")));
        }
    }
    lines
}

fn port_lines(port: &ServicePort) -> Vec<String> {
    let original = port.original.iter().map(|transport| format!("original {}", shown(transport)));
    original.chain(port.endpoints.iter().map(|endpoint| endpoint_line(endpoint))).collect()
}

fn endpoint_line(endpoint: &Endpoint) -> String {
    let priority = if endpoint.priority == 0 { String::new() } else { format!(" p{}", endpoint.priority) };
    format!("{}:{}{priority} {}", endpoint.address, endpoint.port, shown(&endpoint.transport))
}

fn shown(transport: &Transport) -> String {
    let (label, reason) = (transport.label(), transport.reason());
    match transport {
        Transport::Plaintext(_) => format!("{label} {reason}"),
        Transport::Mtls { identities: Ok(ids), sni, .. } => {
            format!("{label} {reason} {sni} {}", ids.to_string().replace("spiffe://", ""))
        }
        Transport::Mtls { identities: Err(none), sni, .. } => format!("{label} {reason} {sni} !{}", none.label()),
        Transport::Originate(origination) => {
            let files: Vec<String> = origination.files().map(ToString::to_string).collect();
            let sni = origination.sni.as_deref().unwrap_or("?");
            format!("{label} {reason} {sni} {:?} {:?}", origination.subject_alt_names, files)
        }
    }
}

#[test]
fn every_transport() {
    all_pass_in(TABLE, "transports", TRANSPORTS, |row| {
        let View { directory, reversed } = View::new(row)?;
        let (got, other) = (lines(&directory), lines(&reversed));
        if got != texts(&row["expect"]) {
            return Err(format!("\n  {}", got.join("\n  ")));
        }
        if got == other { Ok(()) } else { Err(format!("in another order\n  {}", other.join("\n  "))) }
    });
}

fn lookup_line(lookup: &Lookup<'_>) -> String {
    let Lookup::Found(found) = lookup else {
        return match lookup {
            Lookup::Conflict(labels) => format!("conflict {}", labels.join(" ")),
            other => other.label().to_owned(),
        };
    };
    let service = format!("{}:{}", found.service.label(), found.port.number);
    let endpoints = |endpoints: &[Arc<Endpoint>]| -> String {
        let all: Vec<_> =
            endpoints.iter().map(|at| format!("{}:{}/{}", at.address, at.port, at.transport.reason())).collect();
        all.join(" ")
    };
    match found.choice {
        Choice::Any(any) => format!("{service} any {}", endpoints(any)).trim_end().to_owned(),
        Choice::One(one) => format!("{service} one {}", endpoints(std::slice::from_ref(one))),
        Choice::Original(transport) => format!("{service} original {}", transport.reason()),
    }
}

/// `QUESTION -> ANSWER`; the question is `ADDRESS:PORT [NAME]...` or `host HOST PORT [SUBSET]`.
#[test]
fn every_lookup() {
    all_pass_in(TABLE, "lookups", LOOKUPS, |row| {
        let View { directory, reversed } = View::new(row)?;
        for question in texts(&row["expect"]) {
            let (question, answer) = question.split_once(" -> ").unwrap();
            let words: Vec<&str> = question.split(' ').collect();
            for directory in [&directory, &reversed] {
                let found = match words[..] {
                    ["host", host, port] => directory.by_host(host, port.parse().unwrap(), None),
                    ["host", host, port, subset] => directory.by_host(host, port.parse().unwrap(), Some(subset)),
                    [address, ref names @ ..] => {
                        let names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(*name)).collect();
                        directory.find(address.parse::<SocketAddr>().unwrap(), &names)
                    }
                    [] => return Err("no question".to_owned()),
                };
                let got = lookup_line(&found);
                if got != answer {
                    return Err(format!("{question} -> {got}"));
                }
            }
        }
        if let Some(names) = row.get("names") {
            let got: Vec<&str> = directory.names().iter().map(|name| &**name).collect();
            if got != texts(names) {
                return Err(format!("names {got:?}"));
            }
        }
        Ok(())
    });
}

const REFERENCE: &str = include_str!("../../../../docs/reference/service-directory.md");

#[test]
fn the_examples_of_the_reference_load() {
    let mut blocks = 0;
    for block in REFERENCE.split("```yaml\n").skip(1) {
        let text = block.split_once("```").unwrap().0;
        let loaded = PolicySet::load(&[Source { file: "example.yaml".to_owned(), text: text.as_bytes().to_vec() }]);
        assert_eq!((loaded.errors, loaded.warnings), (Vec::new(), Vec::new()));
        blocks += loaded.documents;
    }
    assert_eq!(blocks, 3);
}

#[test]
fn the_reference_has_every_code() {
    let table: Value = serde_yaml::from_str(TABLE).unwrap();
    let invalid = table["invalid"].as_sequence().unwrap().iter().map(|row| row["reason"].as_str().unwrap());
    let findings = table["findings"].as_sequence().unwrap().iter().flat_map(|row| {
        texts(&row["errors"]).into_iter().chain(texts(&row["warnings"])).map(|line| line.split(' ').next().unwrap())
    });
    // About selectors of every kind of policy.
    let shared = ["selector-wildcard"];
    for code in invalid.chain(findings).filter(|code| !shared.contains(code)) {
        assert!(REFERENCE.contains(&format!("`{code}`")), "{code}");
    }
}
