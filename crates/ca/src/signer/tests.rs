use portcullis_identity::leaf::check;
use portcullis_testkit::certs::{Authority, Basic, Profile, San};

use super::*;
use crate::root::Root;

const HOUR: Duration = Duration::from_secs(3600);
const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn id() -> SpiffeId {
    SpiffeId::parse(ID).unwrap()
}

fn key() -> CertifiedPublicKey {
    let pair = key::generate(KeyType::EcdsaP256).unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap();
    CertifiedPublicKey::from_csr(csr.as_bytes()).unwrap()
}

/// Certificate, key, roots, chain.
struct Folder(String, String, String, Option<String>);

impl Folder {
    fn own(root_ttl: Duration, ttl: Duration) -> Self {
        let root = Root::generate(&domain(), root_ttl, &Clock::system()).unwrap();
        let intermediate = root.intermediate(ttl).unwrap();
        let cert = intermediate.cert_pem().to_owned();
        Self(cert.clone(), intermediate.key_pem(), root.cert_pem().to_owned(), Some(cert))
    }

    /// Of a foreign CA.
    fn plugged(root: &Authority, profile: &Profile) -> Self {
        let issued = root.issue(profile);
        Self(issued.cert_pem(), issued.key_pem(), root.bundle_pem(), Some(issued.cert_pem() + &root.bundle_pem()))
    }

    fn read(&self, configured: Option<&TrustDomain>) -> Result<Signer, SignerError> {
        let files = SignerFiles {
            ca_cert: self.0.as_bytes(),
            ca_key: self.1.as_bytes(),
            root_cert: self.2.as_bytes(),
            cert_chain: self.3.as_deref().map(str::as_bytes),
        };
        Signer::read(files, configured, &Clock::system())
    }

    fn refused(&self, configured: Option<&TrustDomain>) -> String {
        self.read(configured).unwrap_err().to_string()
    }
}

/// A foreign CA's intermediate: a name with repeated attributes and no SPIFFE ID.
fn foreign() -> Profile {
    Profile { sans: None, ..Profile::authority("example.org", "O=example,O=org,CN=issuing") }
}

#[test]
fn a_leaf_has_the_profile_whatever_the_key() {
    let signer = Folder::own(10 * HOUR, 10 * HOUR).read(None).unwrap();
    assert!(!signer.signs_as_root() && signer.issuer_chain_pem().len() == 1);
    for (name, kind) in KeyType::ALL {
        let pair = key::generate(kind).unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap();
        let leaf = signer.sign(&id(), HOUR, &CertifiedPublicKey::from_csr(csr.as_bytes()).unwrap()).unwrap();
        let checked = check(&leaf.der, Compat::default(), Role::Client).unwrap();
        assert_eq!((checked.id, checked.serial), (id(), leaf.serial.to_vec()), "{name}");
        let (_, parsed) = X509Certificate::from_der(&leaf.der).unwrap();
        assert!(parsed.subject().iter().next().is_none() && !parsed.is_ca(), "{name}");
        assert!(parsed.subject_alternative_name().unwrap().unwrap().critical, "{name}");
        assert!(parsed.key_usage().unwrap().unwrap().critical, "{name}");
        assert_eq!(leaf.not_after_unix - leaf.not_before_unix, 3660, "{name}: backdated by a minute");
        let now = Clock::system().now_unix();
        assert!((now - 70..=now - 60).contains(&leaf.not_before_unix), "{name}");
    }
}

#[test]
fn serials_are_positive_distinct_and_have_126_random_bits() {
    let signer = Folder::own(HOUR, HOUR).read(None).unwrap();
    let key = key();
    let serials: std::collections::BTreeSet<_> =
        (0..200).map(|_| signer.sign(&id(), HOUR, &key).unwrap().serial).collect();
    assert_eq!(serials.len(), 200);
    assert!(serials.iter().all(|serial| serial[0] & 0xc0 == 0x40));
}

#[test]
fn ttl_never_outlives_issuer() {
    // The intermediate, the root above it, and the shortest life.
    for (root, own) in [(10 * HOUR, HOUR), (HOUR, 10 * HOUR)] {
        let signer = Folder::own(root, own).read(None).unwrap();
        let leaf = signer.sign(&id(), 100 * HOUR, &key()).unwrap();
        assert_eq!(leaf.not_after_unix, signer.not_after_unix());
        assert!(leaf.not_after_unix <= Clock::system().now_unix() + 3600);
    }
    let signer = Folder::own(HOUR, HOUR).read(None).unwrap();
    let leaf = signer.sign(&id(), Duration::ZERO, &key()).unwrap();
    assert_eq!(leaf.not_after_unix - leaf.not_before_unix, 120, "a minute, and the minute before");
    // A root that ends before the intermediate that another CA gave.
    let now = portcullis_testkit::certs::now();
    let root = Authority::self_signed(&Profile::authority("example.org", "CN=root").valid(now - 60, now + 600));
    let signer = Folder::plugged(&root, &foreign()).read(Some(&domain())).unwrap();
    assert_eq!(signer.sign(&id(), HOUR, &key()).unwrap().not_after_unix, now + 600);
}

#[test]
fn a_plugged_in_ca_gets_its_trust_domain_from_the_configuration() {
    let root = Authority::root("example.org");
    let folder = Folder::plugged(&root, &foreign());
    assert!(matches!(folder.read(None), Err(SignerError::NoTrustDomain)));
    let signer = folder.read(Some(&domain())).unwrap();
    assert_eq!(signer.issuer_chain_pem().len(), 1, "the root in cert-chain.pem is not sent");
    assert!(signer.sign(&id(), HOUR, &key()).is_ok());
    let other = TrustDomain::parse("other.org").unwrap();
    assert!(matches!(Folder::own(HOUR, HOUR).read(Some(&other)), Err(SignerError::TrustDomain { .. })));
}

#[test]
fn a_ca_in_the_middle_sends_those_above_it() {
    let root = Authority::root("example.org");
    let upper = root.below(&Profile { sans: None, ..Profile::authority("example.org", "CN=upper") });
    let issued = upper.issue(&foreign());
    let (own, chain) = (portcullis_tls::certificates(issued.cert_pem().as_bytes()).unwrap(), issued.cert_pem());
    let folder = Folder(pem(&own[0]), issued.key_pem(), root.bundle_pem(), Some(chain));
    assert_eq!(folder.read(Some(&domain())).unwrap().issuer_chain_pem().len(), 2);
    let broken = Folder(folder.0, folder.1, folder.2, None);
    assert!(broken.refused(Some(&domain())).contains("does not lead to a root"));
}

#[test]
fn what_cannot_sign_is_refused_when_it_is_read() {
    let root = Authority::root("example.org");
    let plugged = |profile: Profile| Folder::plugged(&root, &profile).refused(Some(&domain()));
    let now = portcullis_testkit::certs::now();
    assert!(plugged(Profile::leaf(ID)).contains("not a CA"));
    assert!(plugged(foreign().valid(now - 600, now - 60)).contains("has expired"));
    assert!(plugged(foreign().valid(now + 600, now + 6000)).contains("not valid yet"));
    assert!(plugged(Profile { key_usage: Some(vec![Profile::CRL_SIGN]), ..foreign() }).contains("keyCertSign"));
    let eku = Profile { extended_key_usage: Some(vec![Profile::CLIENT_AUTH]), ..foreign() };
    assert!(plugged(eku).contains("extended key usage"));
    let (one, two) = (Folder::own(HOUR, HOUR), Folder::own(HOUR, HOUR));
    let wrong_key = Folder(one.0.clone(), two.1, one.2.clone(), None);
    assert!(matches!(wrong_key.read(None), Err(SignerError::KeyMismatch)));
    let wrong_root = Folder(one.0.clone(), one.1.clone(), two.2, None);
    assert!(matches!(wrong_root.read(None), Err(SignerError::Chain(_))));
    let swapped = Folder(one.1.clone(), one.0, one.2, None);
    assert!(matches!(swapped.read(None), Err(SignerError::Pem { file: "ca-cert.pem", .. })));
}

#[test]
fn only_a_root_makes_an_intermediate_and_no_certificate_of_its_own() {
    let root = Root::generate(&domain(), HOUR, &Clock::system()).unwrap();
    let intermediate = root.intermediate(HOUR).unwrap();
    let below = Root::from_pem(intermediate.cert_pem(), &intermediate.key_pem(), &Clock::system()).unwrap();
    assert!(matches!(below.intermediate(HOUR), Err(CaError::NotRoot)));
    let der = portcullis_tls::certificates(intermediate.cert_pem().as_bytes()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&der[0]).unwrap();
    let basic = parsed.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && basic.value.ca && basic.value.path_len_constraint == Some(0));
    assert!(parsed.key_usage().unwrap().unwrap().critical);
}

#[test]
fn the_cas_own_id_and_foreign_ids_cannot_be_registered() {
    let signer = Folder::own(HOUR, HOUR).read(None).unwrap();
    let sign = |id: &str| signer.sign(&SpiffeId::parse(id).unwrap(), HOUR, &key()).unwrap_err();
    assert!(matches!(sign("spiffe://example.org/ns/portcullis-system/sa/ca"), CaError::OwnId(_)));
    assert!(matches!(sign("spiffe://other.org/ns/a/sa/b"), CaError::ForeignId { .. }));
    assert!(matches!(sign("spiffe://example.org"), CaError::NoPath(_)));
}

#[test]
fn the_server_certificate_has_names_and_an_identity() {
    let signer = Folder::own(HOUR, HOUR).read(None).unwrap();
    let names = ["ca.shop", "10.1.2.3", "::1"].map(|name| ServerName::parse(name).unwrap());
    let server = signer.server_certificate(&names, HOUR).unwrap();
    let checked = check(&server.chain[0], Compat::default(), Role::Server).unwrap();
    assert_eq!(checked.id, *signer.own_id());
    let (_, parsed) = X509Certificate::from_der(&server.chain[0]).unwrap();
    assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 4);
    for wrong in ["", "Ca", "a..b", "-a", "a b", "*.a", "1.2.3", "a_b"] {
        assert!(ServerName::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_path_length_constraint_is_enforced() {
    let root = Authority::root("example.org");
    let upper = root.below(&Profile {
        basic: Some(Basic { ca: true, path_len: Some(0) }),
        sans: Some(vec![San::uri("spiffe://example.org")]),
        ..Profile::authority("example.org", "CN=upper")
    });
    let issued = upper.issue(&foreign());
    let own = portcullis_tls::certificates(issued.cert_pem().as_bytes()).unwrap();
    let folder = Folder(pem(&own[0]), issued.key_pem(), root.bundle_pem(), Some(issued.cert_pem()));
    assert!(matches!(folder.read(Some(&domain())), Err(SignerError::Chain(_))));
}
