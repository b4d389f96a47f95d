//! Leaf and signer rules on real certificates: each test changes one thing of a certificate without fault.

use portcullis_identity::leaf::{self, Compat, Leaf, Relaxed, Role};
use portcullis_identity::{SvidError, signer, summary};
use portcullis_testkit::KeyKind;
use portcullis_testkit::certs::{Authority, Basic, Extra, Profile, San, self_signed_leaf};

const ID: &str = "spiffe://example.org/ns/default/sa/web";
const STRICT: Compat = Compat { eku: false, ku_critical: false };
const BOTH: [Role; 2] = [Role::Client, Role::Server];

fn good() -> Profile {
    Profile::leaf(ID)
}

fn der(profile: &Profile) -> Vec<u8> {
    self_signed_leaf(profile).chain.swap_remove(0).to_vec()
}

/// The same verdict in both roles, without any relaxation.
fn check(profile: &Profile) -> Result<Leaf, SvidError> {
    let der = der(profile);
    let [client, server] = BOTH.map(|role| leaf::check(&der, STRICT, role));
    assert_eq!(client, server);
    client
}

fn class(profile: &Profile) -> &'static str {
    check(profile).map_or_else(|error| error.class(), |_| "valid")
}

fn signer_class(profile: &Profile) -> &'static str {
    signer::check(&der(profile)).map_or_else(|error| error.class(), |_| "valid")
}

#[test]
fn a_leaf_without_fault_gives_identity_validity_and_serial() {
    let profile = Profile { not_before: 1_700_000_000, not_after: 1_700_003_600, ..good() };
    let leaf = check(&profile).unwrap();
    assert_eq!(leaf.id.as_str(), ID);
    assert_eq!((leaf.not_before_unix, leaf.not_after_unix), (1_700_000_000, 1_700_003_600));
    assert_eq!((leaf.serial.len(), leaf.serial[0]), (9, 1));
    assert_eq!(leaf.relaxed, Relaxed::default());
    let shown = summary(&der(&profile)).unwrap();
    assert_eq!((shown.not_before_unix, shown.not_after_unix), (leaf.not_before_unix, leaf.not_after_unix));
    let serial: u128 = shown.serial.parse().unwrap();
    assert_eq!((shown.serial.len(), serial >> 64), (20, 1), "a decimal number that begins with the byte 1");
    assert!(summary(b"no certificate").is_err());
}

/// 64 KiB are the most that is looked at, and enough for whatever a certificate may carry.
#[test]
fn a_certificate_of_exactly_the_longest_length_is_read() {
    let padded = |length| {
        let extra = vec![Extra { oid: "1.2.3.4", critical: false, value: vec![1; length] }];
        der(&Profile { extra, ..good() })
    };
    // The length of a signature varies by a few bytes.
    let longest = 64 * 1024;
    let mut length = longest - 1000;
    let fitting = (0..200).find_map(|_| {
        let der = padded(length);
        length = length + longest - der.len();
        (der.len() == longest).then_some(der)
    });
    let fitting = fitting.expect("one of so many signatures has the right length");
    assert!(leaf::check(&fitting, STRICT, Role::Client).is_ok());
    let longer = padded(longest);
    assert_eq!(leaf::check(&longer, STRICT, Role::Client), Err(SvidError::Der("longer than 64 KiB")));
}

#[test]
fn what_a_leaf_may_have() {
    let with = |change: fn(&mut Profile)| {
        let mut profile = good();
        change(&mut profile);
        class(&profile)
    };
    assert_eq!(with(|p| p.extended_key_usage = None), "valid");
    assert_eq!(with(|p| p.basic = None), "valid");
    assert_eq!(with(|p| p.subject = "CN=web".into()), "valid");
    assert_eq!(with(|p| p.san_critical = false), "valid");
    assert_eq!(with(|p| p.key_usage = Some(vec![Profile::DIGITAL_SIGNATURE, Profile::KEY_AGREEMENT])), "valid");
    assert_eq!(with(|p| p.sans.as_mut().unwrap().insert(0, San::Dns("web".into()))), "valid");
    assert_eq!(with(|p| p.extra = vec![Extra { oid: "1.2.3.4", critical: false, value: vec![1] }]), "valid");
}

#[test]
fn keys_of_accepted_kinds_and_sizes_only() {
    for (key, expected) in [
        (KeyKind::P256, "valid"),
        (KeyKind::P384, "valid"),
        (KeyKind::Ed25519, "valid"),
        (KeyKind::Rsa2048, "valid"),
        (KeyKind::P521, "key-type"),
        (KeyKind::Rsa1024, "weak-key"),
    ] {
        assert_eq!(class(&Profile { key, ..good() }), expected, "{key:?}");
        assert_eq!(signer_class(&Profile { key, ..Profile::authority("example.org", "CN=ca") }), expected, "{key:?}");
    }
}

#[test]
fn the_identity_is_the_only_uri_and_nothing_else() {
    let sans = |sans: Vec<San>| class(&Profile { sans: Some(sans), ..good() });
    assert_eq!(sans(vec![]), "no-uri-san");
    assert_eq!(sans(vec![San::Dns("web".into())]), "no-uri-san");
    assert_eq!(sans(vec![San::Email(ID.into())]), "no-uri-san");
    assert_eq!(sans(vec![San::Dns(ID.into())]), "no-uri-san");
    assert_eq!(sans(vec![San::uri(ID), San::uri(ID)]), "multi-uri-san");
    assert_eq!(sans(vec![San::uri("https://example.org/"), San::uri(ID)]), "multi-uri-san");
    assert_eq!(sans(vec![San::Uri(vec![0x80]), San::uri(ID)]), "multi-uri-san");
    assert_eq!(sans(vec![San::uri(ID), San::Uri(vec![])]), "multi-uri-san");
    assert_eq!(sans(vec![San::Uri(b"spiffe://ex/\x80".to_vec())]), "path-char");
    assert_eq!(sans(vec![San::uri("https://example.org/")]), "scheme");
    assert_eq!(sans(vec![San::uri("spiffe://example.org")]), "leaf-no-path");
    assert_eq!(class(&Profile { sans: None, subject: format!("CN={ID}"), ..good() }), "no-uri-san");
    let two = Profile { san_extensions: 2, ..good() };
    assert_eq!(check(&two), Err(SvidError::DuplicateExtension("2.5.29.17".into())));
}

/// A reader that believes the content only, or the tag only, would find an identity in each of these.
#[test]
fn names_that_are_not_der_are_refused() {
    let sans = |san: San| class(&Profile { sans: Some(vec![San::uri(ID), san]), ..good() });
    assert_eq!(sans(San::Raw(0xa6, ID.into())), "extension", "a URI in pieces");
    assert_eq!(sans(San::Raw(0x16, ID.into())), "extension", "not tagged as a name");
    assert_eq!(sans(San::Raw(0x82, vec![0xff])), "extension", "a DNS name that is no text");
    assert_eq!(sans(San::Raw(0x8f, vec![])), "extension", "a name of an unknown kind");
}

#[test]
fn a_leaf_must_not_sign() {
    let usage = |bits: &[u8]| class(&Profile { key_usage: Some(bits.to_vec()), ..good() });
    assert_eq!(usage(&[Profile::DIGITAL_SIGNATURE, Profile::KEY_CERT_SIGN]), "leaf-certsign");
    assert_eq!(usage(&[Profile::DIGITAL_SIGNATURE, Profile::CRL_SIGN]), "leaf-crlsign");
    assert_eq!(usage(&[Profile::KEY_ENCIPHERMENT]), "ku-digsig");
    assert_eq!(usage(&[]), "ku-digsig");
    assert_eq!(class(&Profile { key_usage: None, ..good() }), "ku-digsig");
    assert_eq!(class(&Profile { basic: Some(Basic { ca: true, path_len: None }), ..good() }), "leaf-ca");
}

#[test]
fn key_usage_is_critical_unless_relaxed_and_each_use_is_told() {
    let der = der(&Profile { key_usage_critical: false, ..good() });
    for role in BOTH {
        assert_eq!(leaf::check(&der, STRICT, role).unwrap_err().class(), "ku-critical");
        assert_eq!(leaf::check(&der, Compat { eku: true, ..STRICT }, role).unwrap_err().class(), "ku-critical");
        let leaf = leaf::check(&der, Compat { ku_critical: true, ..STRICT }, role).unwrap();
        assert_eq!(leaf.relaxed, Relaxed { eku: false, ku_critical: true });
    }
}

#[test]
fn extended_key_usage_has_both_purposes_unless_relaxed_to_the_one_needed() {
    let relaxed = Compat { eku: true, ..STRICT };
    for (purposes, client, server) in [
        (vec![Profile::SERVER_AUTH], "eku", "valid"),
        (vec![Profile::CLIENT_AUTH], "valid", "eku"),
        (vec![Profile::ANY_PURPOSE], "eku", "eku"),
        (vec!["1.3.6.1.5.5.7.3.8"], "eku", "eku"),
        (vec![], "eku", "eku"),
    ] {
        let profile = Profile { extended_key_usage: Some(purposes.clone()), ..good() };
        assert_eq!(class(&profile), "eku", "{purposes:?}");
        let der = der(&profile);
        for (role, expected) in [(Role::Client, client), (Role::Server, server)] {
            match leaf::check(&der, relaxed, role) {
                Ok(leaf) => {
                    assert_eq!("valid", expected, "{purposes:?} as {role:?}");
                    assert_eq!(leaf.relaxed, Relaxed { eku: true, ku_critical: false });
                }
                Err(error) => assert_eq!(error.class(), expected, "{purposes:?} as {role:?}"),
            }
        }
    }
    let both = der(&good());
    assert_eq!(leaf::check(&both, relaxed, Role::Client).unwrap().relaxed, Relaxed::default(), "nothing was needed");
}

#[test]
fn extensions_that_cannot_be_checked_are_refused() {
    let extra = |oid: &'static str, critical: bool, value: &[u8]| {
        let value = value.to_vec();
        let mut profile = Profile { extra: vec![Extra { oid, critical, value }], ..good() };
        match oid {
            "2.5.29.15" => profile.key_usage = None,
            "2.5.29.19" => profile.basic = None,
            "2.5.29.37" => profile.extended_key_usage = None,
            "2.5.29.17" => profile.sans = None,
            _ => {}
        }
        class(&profile)
    };
    assert_eq!(extra("1.3.6.1.4.1.99999.1", true, &[5, 0]), "critical-ext");
    assert_eq!(extra("2.5.29.31", true, &[0x30, 0]), "critical-ext", "known, but not processed");
    assert_eq!(extra("2.5.29.15", true, &[0x30, 0]), "extension", "key usage of another type");
    assert_eq!(extra("2.5.29.15", true, &[3, 2, 7, 0x80, 0]), "extension", "a byte after key usage");
    assert_eq!(extra("2.5.29.15", true, &[3, 2, 7, 0x80]), "valid");
    assert_eq!(extra("2.5.29.19", true, &[0x30, 0, 0]), "extension", "a byte after basic constraints");
    assert_eq!(extra("2.5.29.37", false, &[5, 0]), "extension", "extended key usage of another type");
    assert_eq!(extra("2.5.29.17", true, &[5, 0]), "extension", "alternative names of another type");
    assert_eq!(extra("2.5.29.17", true, &[0x30, 3, 0x86, 1, b'x', 0]), "extension", "a byte after the names");
    assert_eq!(extra("2.5.29.30", true, &[5, 0]), "extension", "name constraints of another type");
    assert_eq!(extra("2.5.29.14", false, &[5, 0]), "extension", "a known one that matters little");
}

#[test]
fn only_one_whole_certificate_is_a_certificate() {
    assert_eq!(class(&Profile { trailing: vec![0], ..good() }), "der");
    let whole = der(&good());
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        assert_eq!(leaf::check(&whole[..cut], STRICT, Role::Client).unwrap_err().class(), "der", "cut at {cut}");
    }
    assert_eq!(leaf::check(&vec![0x30; 65 * 1024], STRICT, Role::Client).unwrap_err().class(), "der");
    let huge = Extra { oid: "1.2.3.4", critical: false, value: vec![0; 66 * 1024] };
    assert_eq!(class(&Profile { extra: vec![huge], ..good() }), "der", "sound, and too large to be looked at");
}

#[test]
fn only_version_3_is_read() {
    let whole = der(&good());
    let at = whole.windows(5).position(|window| window == [0xa0, 3, 2, 1, 2]).unwrap() + 4;
    for (version, expected) in [(0, "der"), (1, "der"), (2, "valid"), (3, "der")] {
        let mut changed = whole.clone();
        changed[at] = version;
        let class = leaf::check(&changed, STRICT, Role::Client).map_or_else(|error| error.class(), |_| "valid");
        assert_eq!(class, expected, "version {version}");
    }
}

/// Whatever single byte is changed, there is a verdict and no panic, and no other identity than one that is written there.
#[test]
fn no_changed_byte_brings_it_down() {
    let whole = der(&good());
    for at in 0..whole.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            let _ = signer::check(&changed);
            if let Ok(leaf) = leaf::check(&changed, STRICT, Role::Client) {
                let id = leaf.id.as_str().as_bytes();
                assert!(changed.windows(id.len()).any(|window| window == id));
            }
        }
    }
}

#[test]
fn a_signer_is_a_ca_that_may_sign() {
    let ca = || Profile::authority("example.org", "CN=ca");
    let validity = signer::check(&der(&ca().valid(1_700_000_000, 1_700_003_600))).unwrap();
    assert_eq!((validity.not_before_unix, validity.not_after_unix), (1_700_000_000, 1_700_003_600));
    assert_eq!(signer_class(&Profile { basic: None, ..ca() }), "not-ca");
    assert_eq!(signer_class(&Profile { basic: Some(Basic { ca: false, path_len: None }), ..ca() }), "not-ca");
    assert_eq!(signer_class(&Profile { key_usage: Some(vec![Profile::CRL_SIGN]), ..ca() }), "signing-ku");
    assert_eq!(signer_class(&Profile { key_usage: None, ..ca() }), "signing-ku");
    assert_eq!(signer_class(&good()), "not-ca");
    assert_eq!(signer_class(&Profile { trailing: vec![0], ..ca() }), "der");
}

#[test]
fn a_signers_identity_has_no_path() {
    let sans = |sans: Option<Vec<San>>| signer_class(&Profile { sans, ..Profile::authority("example.org", "CN=ca") });
    assert_eq!(sans(None), "valid");
    assert_eq!(sans(Some(vec![San::uri("https://ca.example.org/")])), "valid");
    assert_eq!(sans(Some(vec![San::uri(ID)])), "signer-path");
    assert_eq!(sans(Some(vec![San::uri("https://ca.example.org/"), San::uri(ID)])), "signer-path");
    assert_eq!(sans(Some(vec![San::uri("spiffe://Example.org")])), "td-char");
}

#[test]
fn a_root_may_lack_key_usage_but_not_contradict_it() {
    let root = |profile: &Profile| signer::check_root(&der(profile)).map_or_else(|error| error.class(), |_| "valid");
    let ca = || Profile::authority("example.org", "CN=ca");
    assert_eq!(root(&ca()), "valid");
    assert_eq!(root(&Profile { key_usage: None, ..ca() }), "valid");
    assert_eq!(root(&Profile { key_usage: Some(vec![Profile::DIGITAL_SIGNATURE]), ..ca() }), "signing-ku");
    assert_eq!(root(&Profile { basic: None, ..ca() }), "not-ca");
    assert_eq!(root(&good()), "not-ca");
    assert_eq!(signer::check_root(Authority::root("example.org").root_der()).map(|_| ()), Ok(()));
}
