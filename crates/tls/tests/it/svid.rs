//! The table of SVID cases: each certificate is made, verified directly, and presented in a real handshake in both directions.

use std::sync::Arc;

use crate::common::{DOMAIN, ME, alert, expect, inbound, outbound, rules, still_clock, td};
use portcullis_identity::SpiffeId;
use portcullis_identity::leaf::Role;
use portcullis_testkit::certs::{Authority, Basic, Extra, Issued, Profile, San, self_signed_leaf};
use portcullis_testkit::{KeyKind, RawPeer};
use portcullis_tls::{Clock, CredentialFiles, Credentials};
use serde::Deserialize;

const BASELINE: &str = "spiffe://example.org/ns/default/sa/web";

/// Needs revocation lists, which come later.
const LATER: [&str; 2] = ["svid-bad-revoked", "svid-bad-crl-expired"];

#[derive(Deserialize)]
struct Cases {
    svid: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    cert: Cert,
    expect: String,
    level: String,
    reason: String,
}

/// What differs from the certificate without fault. Unknown keys fail, so that no row is tested for less than it says.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cert {
    bundles: Vec<String>,
    chain: Vec<String>,
    crl: Option<String>,
    eku: Option<Words>,
    extra_ext: Option<ExtraExt>,
    issuer: Option<String>,
    key: Option<String>,
    ku: Option<Vec<String>>,
    ku_critical: Option<bool>,
    own_expected_id: Option<String>,
    present: Option<String>,
    san: Option<String>,
    san_critical: Option<bool>,
    san_dns: Vec<String>,
    san_email: Vec<String>,
    san_extension_count: Option<usize>,
    san_ip: Vec<std::net::Ipv4Addr>,
    san_uri: Option<Vec<String>>,
    san_uri_bytes_hex: Option<String>,
    sig: Option<String>,
    subject: Option<String>,
    trailing_bytes: Option<usize>,
    valid: Option<(String, String)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct ExtraExt {
    oid: String,
    critical: bool,
}

/// `-2h`, `0s`, `1h` in seconds.
fn offset(text: &str) -> i64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let scale = match unit {
        "s" => 1,
        "h" => 3600,
        other => panic!("unit {other}"),
    };
    number.parse::<i64>().unwrap() * scale
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

impl Cert {
    fn profile(&self, now: i64) -> Profile {
        let mut profile = Profile::leaf(BASELINE).valid(now - 3600, now + 3600);
        if let Some((from, until)) = &self.valid {
            profile = profile.valid(now + offset(from), now + offset(until));
        }
        self.set_names(&mut profile);
        self.set_usage(&mut profile);
        match self.subject.as_deref() {
            None | Some("empty") => {}
            Some(subject) => subject.clone_into(&mut profile.subject),
        }
        match self.key.as_deref() {
            None => {}
            Some("ed25519") => profile.key = KeyKind::Ed25519,
            Some("rsa2048") => profile.key = KeyKind::Rsa2048,
            Some(other) => panic!("key {other}"),
        }
        if let Some(extra) = &self.extra_ext {
            let oid: &'static str = Box::leak(extra.oid.clone().into_boxed_str());
            profile.extra.push(Extra { oid, critical: extra.critical, value: vec![5, 0] });
        }
        profile.trailing = vec![0; self.trailing_bytes.unwrap_or(0)];
        profile.sha1 = self.sig.as_deref().is_some_and(|sig| {
            assert_eq!(sig, "sha1");
            true
        });
        profile
    }

    fn set_names(&self, profile: &mut Profile) {
        let mut sans: Vec<San> = match (&self.san_uri, &self.san_uri_bytes_hex) {
            (Some(uris), _) => uris.iter().map(|uri| San::uri(uri)).collect(),
            (None, Some(hex)) => vec![San::Uri(unhex(hex))],
            (None, None) => vec![San::uri(BASELINE)],
        };
        sans.extend(self.san_dns.iter().cloned().map(San::Dns));
        sans.extend(self.san_email.iter().cloned().map(San::Email));
        sans.extend(self.san_ip.iter().map(|ip| San::Ip(ip.octets())));
        profile.sans = match self.san.as_deref() {
            None => Some(sans),
            Some("absent") => None,
            Some(other) => panic!("san {other}"),
        };
        profile.san_critical = self.san_critical.unwrap_or(true);
        profile.san_extensions = self.san_extension_count.unwrap_or(1);
    }

    fn set_usage(&self, profile: &mut Profile) {
        profile.key_usage_critical = self.ku_critical.unwrap_or(true);
        if let Some(bits) = &self.ku {
            let bit = |name: &String| match name.as_str() {
                "digitalSignature" => Profile::DIGITAL_SIGNATURE,
                "keyEncipherment" => Profile::KEY_ENCIPHERMENT,
                "keyAgreement" => Profile::KEY_AGREEMENT,
                "keyCertSign" => Profile::KEY_CERT_SIGN,
                "cRLSign" => Profile::CRL_SIGN,
                other => panic!("key usage {other}"),
            };
            profile.key_usage = Some(bits.iter().map(bit).collect());
        }
        match &self.eku {
            None => {}
            Some(Words::One(word)) if word == "absent" => profile.extended_key_usage = None,
            Some(Words::One(other)) => panic!("extended key usage {other}"),
            Some(Words::Many(purposes)) => {
                let purpose = |name: &String| match name.as_str() {
                    "serverAuth" => Profile::SERVER_AUTH,
                    "clientAuth" => Profile::CLIENT_AUTH,
                    "anyExtendedKeyUsage" => Profile::ANY_PURPOSE,
                    other => panic!("purpose {other}"),
                };
                profile.extended_key_usage = Some(purposes.iter().map(purpose).collect());
            }
        }
    }
}

/// The authorities of the table.
struct Scene {
    root: Authority,
    partner: Authority,
}

impl Scene {
    fn new() -> Self {
        Self { root: Authority::root(DOMAIN), partner: Authority::root("partner.test") }
    }

    fn issue(&self, cert: &Cert, now: i64) -> Issued {
        let profile = cert.profile(now);
        let issuer = match cert.issuer.as_deref() {
            None => self.root.clone(),
            Some("partner_root") => self.partner.clone(),
            Some("root_with_same_dn_other_key") => self.root.namesake(DOMAIN),
            Some("self") => return self_signed_leaf(&profile),
            Some(other) => panic!("issuer {other}"),
        };
        cert.chain.iter().fold(issuer, |issuer, name| below(&issuer, name, now)).issue(&profile)
    }
}

/// The next authority downwards. The table lists a chain from the root to the leaf.
fn below(issuer: &Authority, name: &str, now: i64) -> Authority {
    if let Some(count) = name.strip_suffix(" intermediates") {
        let count: usize = count.parse().unwrap();
        return (0..count).fold(issuer.clone(), |issuer, index| {
            issuer.below(&Profile::authority(DOMAIN, &format!("CN=intermediate number {index}")))
        });
    }
    let good = Profile::authority(DOMAIN, &format!("CN={name}"));
    issuer.below(&match name {
        "intermediate" | "intermediate2" => good,
        "intermediate_without_san" => Profile { sans: None, ..good },
        "expired_intermediate" => good.valid(now - 7200, now - 1),
        "intermediate_ca_false" => Profile { basic: Some(Basic { ca: false, path_len: None }), ..good },
        "intermediate_without_keyCertSign" => Profile { key_usage: Some(vec![Profile::CRL_SIGN]), ..good },
        "intermediate_pathlen0" => Profile { basic: Some(Basic { ca: true, path_len: Some(0) }), ..good },
        "other_workload_leaf" => {
            Profile { subject: "CN=other workload".into(), ..Profile::leaf("spiffe://example.org/other") }
        }
        other => panic!("chain {other}"),
    })
}

/// Our side: a workload of example.org that also trusts the domains that the row lists.
fn ours(scene: &Scene, cert: &Cert, clock: &Clock) -> Arc<Credentials> {
    let own = scene.root.workload(ME);
    let federated = match cert.bundles.iter().find(|domain| *domain != DOMAIN) {
        Some(domain) => vec![(td(domain), scene.partner.bundle_pem().into())],
        None => Vec::new(),
    };
    let bundle = scene.root.bundle_pem().into();
    let files = CredentialFiles::new(own.cert_pem().into(), own.key_pem().into(), bundle, federated);
    Arc::new(Credentials::validate(files, &rules(ME), clock).unwrap())
}

/// What the row wants to happen at our verifier: valid, or the class.
fn wanted(case: &Case) -> Option<&str> {
    match (case.expect.as_str(), case.level.as_str()) {
        // Binds what our CA may emit; the verifier accepts it (and the CA's own tests see that it isn't emitted).
        ("valid", _) | ("invalid", "issuer") => None,
        ("invalid", _) => Some(case.reason.strip_prefix('[').unwrap().split(']').next().unwrap()),
        (other, _) => panic!("{}: expect {other}", case.id),
    }
}

fn cases() -> Vec<Case> {
    let all: Cases = serde_yaml::from_str(include_str!("../../../identity/tests/data/spiffe-id-cases.yaml")).unwrap();
    assert_eq!(all.svid.len(), 46, "a row more or less than when this was written");
    all.svid.into_iter().filter(|case| !LATER.contains(&case.id.as_str())).collect()
}

#[test]
fn svid_cases_by_verdict() {
    let scene = Scene::new();
    for case in cases() {
        if case.cert.present.is_some() || case.cert.own_expected_id.is_some() {
            continue;
        }
        let (clock, _) = still_clock();
        let issued = scene.issue(&case.cert, clock.now_unix());
        let ours = ours(&scene, &case.cert, &clock);
        for role in [Role::Client, Role::Server] {
            let verdict = ours.trust().verify(&issued.chain, role, clock.now());
            let class = verdict.as_ref().err().map(|error| error.class());
            assert_eq!(class, wanted(&case), "{} as {role:?}: {verdict:?}", case.id);
        }
    }
}

#[tokio::test]
async fn svid_cases_presented_by_a_client() {
    let scene = Scene::new();
    for case in cases() {
        if case.cert.own_expected_id.is_some() {
            continue;
        }
        let (clock, _) = still_clock();
        let peer = match case.cert.present.as_deref() {
            None => RawPeer::presenting(&scene.issue(&case.cert, clock.now_unix())),
            Some("none") => RawPeer::anonymous(),
            Some(other) => panic!("present {other}"),
        };
        let (result, seen) = inbound(&ours(&scene, &case.cert, &clock), &peer).await;
        let class = result.as_ref().err().map(|error| error.class());
        assert_eq!(class, wanted(&case), "{}: {result:?}", case.id);
        match wanted(&case) {
            None => assert_eq!(seen.unwrap(), b"hello", "{}", case.id),
            Some(_) => assert!(alert(&seen).is_some(), "{}: the client gets an alert: {seen:?}", case.id),
        }
    }
}

#[tokio::test]
async fn svid_cases_presented_by_a_server() {
    let scene = Scene::new();
    for case in cases() {
        // A server without a certificate does not exist in TLS.
        if case.cert.own_expected_id.is_some() || case.cert.present.is_some() {
            continue;
        }
        let (clock, _) = still_clock();
        let peer = RawPeer::presenting(&scene.issue(&case.cert, clock.now_unix()));
        let claimed = case.cert.san_uri.as_ref().and_then(|uris| SpiffeId::parse(uris.first()?).ok());
        let expected = claimed.map_or_else(|| expect(BASELINE), |id| expect(id.as_str()));
        let (result, seen) = outbound(&ours(&scene, &case.cert, &clock), &expected, &peer).await;
        let class = result.as_ref().err().map(|error| error.class());
        assert_eq!(class, wanted(&case), "{}: {result:?}", case.id);
        match wanted(&case) {
            None => seen.unwrap(),
            Some(_) => assert!(alert(&seen).is_some(), "{}: the server gets an alert: {seen:?}", case.id),
        }
    }
}

#[test]
fn svid_cases_of_our_own_certificate() {
    let scene = Scene::new();
    let mut rows = 0;
    for case in cases() {
        if case.cert.present.is_some() {
            continue;
        }
        let (clock, _) = still_clock();
        let issued = scene.issue(&case.cert, clock.now_unix());
        let partner = (td("partner.test"), scene.partner.bundle_pem().into());
        let federated = if case.cert.bundles.is_empty() { Vec::new() } else { vec![partner] };
        let files = CredentialFiles::new(
            issued.cert_pem().into(),
            issued.key_pem().into(),
            scene.root.bundle_pem().into(),
            federated,
        );
        let own = case.cert.own_expected_id.as_deref().unwrap_or(BASELINE);
        let result = Credentials::validate(files, &rules(own), &clock);
        let class = result.as_ref().err().map(|error| error.class());
        match case.id.as_str() {
            // Sound, but not this workload's identity: here the row is about a peer.
            "svid-ok-federated" => assert_eq!(class, Some("own-id")),
            _ => assert_eq!(class, wanted(&case), "{}: {result:?}", case.id),
        }
        rows += 1;
    }
    assert!(rows > 40);
}
