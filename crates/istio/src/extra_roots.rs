//! The root certificates in `caCertificates`.

use portcullis_yaml::Diagnostic;

use crate::mesh_config::{Location, MeshConfig};

/// At most this many extra roots: the answer that carries them must stay within what clients read.
const MAX_ROOTS: usize = 32;
/// At most this many bytes of PEM.
const MAX_PEM_BYTES: usize = 64 * 1024;

/// A root certificate, as the parser returns it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RootCertificate {
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// Last second of validity, in Unix time.
    pub not_after_unix: i64,
}

/// Why the parser refuses a text in PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RootError {
    /// Stable reason code.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
    /// Whether all roots have expired: they then have no effect, which must not prevent a start.
    pub expired: bool,
}

/// A root that workloads are to trust in addition to those of the CA.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExtraRoot {
    /// The certificate.
    pub certificate: RootCertificate,
    /// Where it is written.
    pub location: Location,
}

/// The checked roots of a [`MeshConfig`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExtraRoots {
    /// The usable roots. With any error, none of them is to be used.
    pub roots: Vec<ExtraRoot>,
    /// What is not a root, or exceeds a limit.
    pub errors: Vec<Diagnostic>,
    /// Roots that have expired, which are left out.
    pub warnings: Vec<Diagnostic>,
}

impl ExtraRoots {
    /// Checks every root with `parse`, which takes PEM and must accept only CA certificates that are valid now.
    pub fn check(mesh: &MeshConfig, parse: impl Fn(&str) -> Result<Vec<RootCertificate>, RootError>) -> Self {
        let mut checked = Self::default();
        for entry in &mesh.ca_certificates {
            match parse(&entry.pem) {
                Ok(roots) => checked.roots.extend(
                    roots.into_iter().map(|certificate| ExtraRoot { certificate, location: entry.location.clone() }),
                ),
                Err(error) => {
                    let list = if error.expired { &mut checked.warnings } else { &mut checked.errors };
                    list.push(entry.location.diagnostic(error.reason, error.message));
                }
            }
        }
        let bytes: usize = checked.roots.iter().map(|root| pem_length(root.certificate.der.len())).sum();
        if let Some(last) = checked.roots.last()
            && (checked.roots.len() > MAX_ROOTS || bytes > MAX_PEM_BYTES)
        {
            let count = checked.roots.len();
            let message = format!(
                "{count} extra roots of {bytes} bytes; at most {MAX_ROOTS} and {MAX_PEM_BYTES} bytes are distributed"
            );
            let error = last.location.diagnostic("too-many-roots", message);
            checked.errors.push(error);
        }
        checked
    }
}

/// The length in PEM of a certificate with this length in DER: base64 in lines of 64 characters between two markers.
fn pem_length(der: usize) -> usize {
    const MARKERS: usize = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".len();
    let base64 = der.div_ceil(3).saturating_mul(4);
    base64.saturating_add(base64.div_ceil(64)).saturating_add(MARKERS)
}

#[cfg(test)]
mod tests {
    use portcullis_yaml::Position;

    use super::*;
    use crate::mesh_config::CaCertificates;

    fn mesh(pems: &[&str]) -> MeshConfig {
        let entry = |(index, pem): (usize, &&str)| CaCertificates {
            pem: (*pem).to_owned(),
            signers: Vec::new(),
            location: Location {
                file: "mesh.yaml".to_owned(),
                position: Position { line: u32::try_from(index).unwrap() + 1, column: 1 },
                field: "pem".to_owned(),
            },
        };
        MeshConfig { ca_certificates: pems.iter().enumerate().map(entry).collect(), ..MeshConfig::default() }
    }

    /// Takes `LENGTH*COUNT` for so many certificates.
    fn parse(text: &str) -> Result<Vec<RootCertificate>, RootError> {
        let error = |expired| RootError { reason: "test", message: text.to_owned(), expired };
        let (length, count) = text.split_once('*').ok_or_else(|| error(text == "expired"))?;
        let root = RootCertificate { der: vec![0; length.parse().unwrap()], not_after_unix: 9 };
        Ok(vec![root; count.parse().unwrap()])
    }

    #[test]
    fn each_finding_has_the_location_of_its_entry() {
        let checked = ExtraRoots::check(&mesh(&["3*2", "damaged", "expired", "5*1"]), parse);
        let roots: Vec<_> =
            checked.roots.iter().map(|root| (root.certificate.der.len(), root.location.position.line)).collect();
        assert_eq!(roots, [(3, 1), (3, 1), (5, 4)]);
        let lines = |found: &[Diagnostic]| found.iter().map(|found| (found.line, found.reason)).collect::<Vec<_>>();
        assert_eq!((lines(&checked.errors), lines(&checked.warnings)), (vec![(2, "test")], vec![(3, "test")]));
    }

    #[test]
    fn number_and_size_are_limited() {
        let errors = |pem: &str| ExtraRoots::check(&mesh(&[pem]), parse).errors;
        assert_eq!(errors("300*32"), []);
        let too_many = errors("300*33");
        assert_eq!(too_many.len(), 1);
        assert!(too_many[0].reason == "too-many-roots" && too_many[0].message.contains("33 extra roots"));
        // 20 roots of 3268 bytes are 65360 bytes on 64 lines or more each.
        assert_eq!(errors("2350*20"), []);
        assert_eq!(errors("2400*20")[0].reason, "too-many-roots");
    }

    #[test]
    fn the_length_is_that_of_the_encoded_certificate() {
        // openssl's output for 1, 48 and 49 bytes: 4, 64 and 68 characters.
        assert_eq!([1, 48, 49].map(|der| pem_length(der) - 54), [4 + 1, 64 + 1, 68 + 2]);
    }
}
