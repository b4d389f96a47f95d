//! Certificates in DER, one after the other, as the Workload API has them.

use rustls_pki_types::CertificateDer;

/// More than a chain or a bundle has.
const MOST: usize = 256;

/// Cuts them apart; what is in them is judged elsewhere.
pub(crate) fn certificates(mut bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = sequence_length(bytes).ok_or("what it has is no DER certificate, or is cut off")?;
        let (one, rest) = bytes.split_at_checked(length).ok_or("a certificate is cut off")?;
        if all.len() == MOST {
            return Err("more certificates than are read");
        }
        all.push(CertificateDer::from(one.to_vec()));
        bytes = rest;
    }
    Ok(all)
}

/// How many bytes the SEQUENCE at the beginning has, with its header; in DER's shortest form and at most 16 MiB.
fn sequence_length(bytes: &[u8]) -> Option<usize> {
    let (header, rest) = bytes.split_at_checked(2)?;
    let [0x30, first] = header else { return None };
    match usize::from(*first) {
        short if short < 0x80 => Some(short.saturating_add(2)),
        long @ 0x81..=0x83 => {
            let count = long.saturating_sub(0x80);
            let digits = rest.get(..count)?;
            let length = digits.iter().fold(0_usize, |sum, digit| (sum << 8) | usize::from(*digit));
            let shortest = length >= 0x80 && digits.first() != Some(&0);
            shortest.then(|| length.saturating_add(count).saturating_add(2))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use portcullis_testkit::certs::Authority;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_is_cut_into_its_certificates() {
        let ca = Authority::root("example.org");
        let leaf = ca.workload("spiffe://example.org/a").chain.remove(0);
        let both = [leaf.as_ref(), ca.root_der().as_ref()].concat();
        assert_eq!(certificates(&both).unwrap(), [leaf, ca.root_der().clone()]);
        assert_eq!(certificates(&[]).unwrap(), []);
        for wrong in [
            &both[..both.len() - 1],
            &both[1..],
            &[0x30],
            &[0x30, 0x81, 0x05, 1, 2, 3, 4, 5],
            &[0x30, 0x84, 0, 0, 0, 0],
        ] {
            assert!(certificates(wrong).is_err(), "{wrong:?}");
        }
        assert!(certificates(&[0x30, 0].repeat(MOST + 1)).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_cut_without_loss_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(all) = certificates(&bytes) {
                prop_assert_eq!(all.iter().flat_map(|der| der.to_vec()).collect::<Vec<_>>(), bytes);
            }
        }
    }
}
