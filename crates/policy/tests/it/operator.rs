//! IstioOperator documents: what is read of them, what is noted, what is refused.

use std::time::Duration;

use portcullis_identity::KeyType;
use portcullis_policy::{Diagnostic, Loaded, PolicySet, Source};

fn load(texts: &[&str]) -> Loaded {
    let file = |(n, text): (usize, &&str)| Source { file: format!("{n}.yaml"), text: text.as_bytes().to_vec() };
    PolicySet::load(&texts.iter().enumerate().map(file).collect::<Vec<_>>())
}

/// "line:column field reason" of each.
fn places(found: &[Diagnostic]) -> Vec<String> {
    found.iter().map(|d| format!("{}:{} {} {}", d.line, d.column, d.field, d.reason)).collect()
}

const HEAD: &str = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\n";

fn certificates(fields: &str) -> String {
    format!("{HEAD}spec: {{meshConfig: {{certificates: {fields}}}}}\n")
}

/// The three examples of a guide to mTLS in Istio, letter for letter but for the certificate.
const GUIDE: &str = "apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  meshConfig:
    caCertificates:
    - pem: |
        -----BEGIN CERTIFICATE-----
        ...
        -----END CERTIFICATE-----
      certSigners:
      - your-external-ca.example.com
---
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  meshConfig:
    certificates:
      secretTTL: 24h
      workloadCertTTL: 24h
---
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  meshConfig:
    certificates:
      workloadRSAKeySize: 4096
";

#[test]
fn the_examples_of_the_guide_are_read_literally() {
    let loaded = load(&[GUIDE]);
    assert_eq!((loaded.documents, loaded.errors), (3, Vec::new()));
    let mesh = loaded.set.mesh();
    let day = Duration::from_secs(24 * 3600);
    assert_eq!((mesh.secret_ttl.as_ref().unwrap().value, mesh.workload_cert_ttl.as_ref().unwrap().value), (day, day));
    assert_eq!(mesh.key_type(), Some(KeyType::Rsa4096));
    let [entry] = mesh.ca_certificates.as_slice() else { panic!("{mesh:?}") };
    assert_eq!(entry.pem, "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n");
    assert_eq!(entry.signers, ["your-external-ca.example.com"]);
    assert_eq!(
        (entry.location.position.line, entry.location.field.as_str()),
        (7, "spec.meshConfig.caCertificates[0].pem")
    );
    // What Istio would not read is said, with what it would; caCertificates it reads as well.
    assert_eq!(
        places(&loaded.warnings),
        [
            "18:18 spec.meshConfig.certificates.secretTTL ignored-by-istio",
            "19:24 spec.meshConfig.certificates.workloadCertTTL ignored-by-istio",
            "26:27 spec.meshConfig.certificates.workloadRSAKeySize ignored-by-istio",
        ]
    );
    for (warning, knob) in
        loaded.warnings.iter().zip(["SECRET_TTL", "DEFAULT_WORKLOAD_CERT_TTL", "WORKLOAD_RSA_KEY_SIZE"])
    {
        let said = &warning.message;
        assert!(said.contains("works here, ignored by Istio") && said.contains(&format!("set {knob} in")), "{said}");
    }
    let fields: Vec<_> = mesh.ca_only_locations().into_iter().map(|location| location.field).collect();
    assert_eq!(fields.len(), 3, "the key size is for workloads: {fields:?}");
}

#[test]
fn the_kind_may_stand_in_a_list_and_have_any_metadata() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: install.istio.io/v1alpha1\n  kind: IstioOperator\n  \
                metadata: {name: Any Name, whatever: 1}\n  spec: {meshConfig: {certificates: {secretTTL: 1h30m}}}\n";
    let loaded = load(&[text]);
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.set.mesh().secret_ttl.as_ref().unwrap().value, Duration::from_secs(5400));
    for empty in ["", "spec:\n", "spec: {}\n", "spec: {meshConfig: }\n", "spec: {meshConfig: {certificates: ~}}\n"] {
        let loaded = load(&[&format!("{HEAD}{empty}")]);
        assert_eq!((loaded.errors, loaded.warnings), (vec![], vec![]), "{empty}");
        assert!(loaded.set.mesh().is_empty());
    }
}

#[test]
fn what_has_no_meaning_here_is_noted_field_by_field() {
    let text = format!(
        "{HEAD}spec:\n  profile: default\n  meshConfig:\n    accessLogFile: /dev/stdout\n    certificates:\n      \
         secretTTl: 24h\n"
    );
    let loaded = load(&[&text]);
    assert_eq!(loaded.errors, []);
    assert_eq!(
        places(&loaded.warnings),
        [
            "4:3 spec.profile ignored-field",
            "6:5 spec.meshConfig.accessLogFile ignored-field",
            "8:7 spec.meshConfig.certificates.secretTTl ignored-field",
        ]
    );
    assert!(loaded.warnings[2].message.contains("did you mean \"secretTTL\"?"), "{}", loaded.warnings[2]);
    // Istio's own field of this name.
    let dns = load(&[&certificates("[{secretName: a, dnsNames: [b]}]")]);
    assert_eq!((places(&dns.errors).len(), dns.warnings[0].reason), (0, "ignored-field"));
}

#[test]
fn values_that_cannot_be_right_are_refused_at_their_place() {
    for (fields, reason) in [
        ("{secretTTL: 24}", "wrong-type"),
        ("{secretTTL: 1d}", "invalid-value"),
        ("{secretTTL: 0s}", "invalid-value"),
        ("{secretTTL: -1h}", "invalid-value"),
        ("{workloadCertTTL: 1500ms}", "invalid-value"),
        ("{workloadCertTTL: 87601h}", "invalid-value"),
        ("{workloadRSAKeySize: 1024}", "invalid-value"),
        ("{workloadRSAKeySize: 8192}", "invalid-value"),
        ("{workloadRSAKeySize: -2048}", "out-of-range"),
        ("{workloadRSAKeySize: \"4096\"}", "wrong-type"),
        ("yes", "wrong-type"),
    ] {
        let loaded = load(&[&certificates(fields)]);
        assert_eq!(loaded.errors.len(), 1, "{fields}: {:?}", loaded.errors);
        assert_eq!((loaded.errors[0].reason, loaded.errors[0].line), (reason, 3), "{fields}");
        assert!(loaded.set.mesh().is_empty(), "{fields}");
    }
}

/// A restriction that is not understood would be a root that is trusted too widely.
#[test]
fn nothing_beside_a_root_is_ignored() {
    let roots = |item: &str| load(&[&format!("{HEAD}spec: {{meshConfig: {{caCertificates: [{item}]}}}}\n")]);
    for (item, reason) in [
        ("{pem: x, trustDomains: [partner.test]}", "unsupported-field"),
        ("{pem: x, spiffeBundleUrl: \"https://a.test\"}", "unsupported-field"),
        ("{pem: x, trustDomain: [partner.test]}", "unknown-field"),
        ("{certSigners: [a]}", "missing-field"),
        ("{pem: x, certSigners: a}", "wrong-type"),
        ("{pem: x, certSigners: [1]}", "wrong-type"),
        ("text", "wrong-type"),
    ] {
        let loaded = roots(item);
        assert_eq!(loaded.errors.first().map(|error| error.reason), Some(reason), "{item}");
        assert!(loaded.set.mesh().ca_certificates.is_empty(), "{item}");
    }
    assert_eq!(roots("{pem: x}, {pem: y}").set.mesh().ca_certificates.len(), 2);
}

#[test]
fn documents_add_up_and_must_not_contradict_each_other() {
    let (day, hour) = (certificates("{secretTTL: 24h, workloadRSAKeySize: 2048}"), certificates("{secretTTL: 1h}"));
    let same = certificates("{secretTTL: 1440m, workloadCertTTL: 12h}");
    let loaded = load(&[&day, &same]);
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.set.mesh().workload_cert_ttl.as_ref().unwrap().value, Duration::from_secs(12 * 3600));
    assert_eq!(loaded.set.mesh().key_type(), Some(KeyType::Rsa2048));
    let loaded = load(&[&day, &hour]);
    assert_eq!(places(&loaded.errors), ["3:47 spec.meshConfig.certificates.secretTTL conflicting-value"]);
    assert!(loaded.errors[0].message.contains("0.yaml:3 sets another value"), "{}", loaded.errors[0]);
    assert_eq!(loaded.errors[0].file, "1.yaml");
}
