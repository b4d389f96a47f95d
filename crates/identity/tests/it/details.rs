//! What a certificate says of itself.

use portcullis_identity::{Constraints, details};
use portcullis_testkit::certs::{Authority, Basic, Profile, San};

const WEB: &str = "spiffe://example.org/ns/default/sa/web";

#[test]
fn all_that_a_certificate_says_is_told_whether_it_is_fit_or_not() {
    let mut profile = Profile::leaf(WEB);
    profile.subject = "CN=web".to_owned();
    profile.sans = Some(vec![San::uri(WEB), San::uri("https://example.org/"), San::Dns("web".to_owned())]);
    profile.key_usage = Some(vec![Profile::DIGITAL_SIGNATURE, Profile::KEY_ENCIPHERMENT]);
    profile.key_usage_critical = false;
    profile.extended_key_usage = Some(vec![Profile::CLIENT_AUTH, "1.3.6.1.4.1.311.20.2.2"]);
    profile.basic = Some(Basic { ca: true, path_len: Some(3) });
    let issued = Authority::root("example.org").issue(&profile);
    let read = details(&issued.chain[0]).unwrap();
    assert_eq!((read.summary.subject.as_str(), read.summary.issuer.as_str()), ("CN=web", "CN=root of example.org"));
    assert_eq!((read.uris, read.key.as_str()), (vec![WEB.to_owned(), "https://example.org/".to_owned()], "ecdsa-p256"));
    let usage = read.key_usage.unwrap();
    assert_eq!(
        (usage.critical, usage.uses),
        (false, vec!["digitalSignature".to_owned(), "keyEncipherment".to_owned()])
    );
    let purposes = read.extended_key_usage.unwrap();
    assert_eq!(purposes.uses, ["clientAuth", "1.3.6.1.4.1.311.20.2.2"]);
    assert_eq!(read.basic_constraints, Some(Constraints { ca: true, path_len: Some(3) }));
}

#[test]
fn an_extension_that_is_absent_is_not_an_empty_one() {
    let mut profile = Profile::leaf(WEB);
    (profile.key_usage, profile.extended_key_usage, profile.basic) = (None, None, None);
    let read = details(&Authority::root("example.org").issue(&profile).chain[0]).unwrap();
    assert_eq!((read.key_usage, read.extended_key_usage, read.basic_constraints), (None, None, None));
}
