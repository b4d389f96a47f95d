//! What a status page shows of a certificate, be it a leaf, an intermediate or a root.

use crate::svid::SvidError;
use crate::x509::Strict;

/// The facts by which people recognise a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    /// The serial number in decimal, as Istio's tools show it.
    pub serial: String,
    /// First second of validity, in Unix time.
    pub not_before_unix: i64,
    /// Last second of validity, in Unix time.
    pub not_after_unix: i64,
    /// Whether subject and issuer are one name, as a root has it.
    pub self_issued: bool,
}

/// Reads the facts of a certificate; whether it is fit for anything is not looked at.
///
/// # Errors
/// If it is not a certificate that can be read strictly.
pub fn summary(der: &[u8]) -> Result<Summary, SvidError> {
    let strict = Strict::parse(der)?;
    let (serial, validity) = (strict.cert().serial.to_string(), strict.cert().validity());
    Ok(Summary {
        serial,
        not_before_unix: validity.not_before.timestamp(),
        not_after_unix: validity.not_after.timestamp(),
        self_issued: strict.cert().subject().as_raw() == strict.cert().issuer().as_raw(),
    })
}
