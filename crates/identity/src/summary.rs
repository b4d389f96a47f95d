//! What a status page shows of a leaf, an intermediate or a root certificate.

use crate::svid::SvidError;
use crate::x509::Strict;

/// The fields that identify a certificate to an operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    /// The serial number in decimal, as Istio's tools show it.
    pub serial: String,
    /// The serial number in hexadecimal, as Envoy and the CA's log show it: lower case, an even number of digits.
    pub serial_hex: String,
    /// The subject as openssl prints it, such as `O=cluster.local, CN=web`; empty if it has none.
    pub subject: String,
    /// The issuer, in the same form.
    pub issuer: String,
    /// First second of validity, in Unix time.
    pub not_before_unix: i64,
    /// Last second of validity, in Unix time.
    pub not_after_unix: i64,
    /// Whether subject and issuer are one name, as a root has it.
    pub self_issued: bool,
}

/// Reads the facts of a certificate; it is not checked for any use.
///
/// # Errors
/// If it is not a certificate that can be read strictly.
pub fn summary(der: &[u8]) -> Result<Summary, SvidError> {
    let strict = Strict::parse(der)?;
    let (cert, validity) = (strict.cert(), strict.cert().validity());
    Ok(Summary {
        serial: cert.serial.to_string(),
        serial_hex: serial_hex(cert.raw_serial()),
        subject: cert.subject().to_string(),
        issuer: cert.issuer().to_string(),
        not_before_unix: validity.not_before.timestamp(),
        not_after_unix: validity.not_after.timestamp(),
        self_issued: cert.subject().as_raw() == cert.issuer().as_raw(),
    })
}

/// DER puts a zero byte before a number whose first bit is set, which is no part of the number.
fn serial_hex(der: &[u8]) -> String {
    let number = match der {
        [0, rest @ ..] if !rest.is_empty() => rest,
        other => other,
    };
    number.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_has_two_digits_a_byte_and_no_sign_byte() {
        assert_eq!(serial_hex(&[0, 0x8f, 1]), "8f01");
        assert_eq!(serial_hex(&[1, 0]), "0100");
        assert_eq!(serial_hex(&[0]), "00");
    }
}
