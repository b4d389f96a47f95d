//! Certificates in DER that follow each other without separators, as the SPIFFE Workload API sends them.

/// The largest number of certificates that [`certificates`] returns: more than a chain or a bundle has.
pub const MAX_CERTIFICATES: usize = 256;

/// Splits certificates that follow each other; their contents are not looked at.
///
/// # Errors
/// If one is cut off or is not a SEQUENCE in DER, or there are too many.
pub fn certificates(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = sequence_length(bytes).ok_or("it is not a certificate in DER, or is cut off")?;
        let (one, rest) = bytes.split_at_checked(length).ok_or("a certificate is cut off")?;
        if all.len() == MAX_CERTIFICATES {
            return Err("there are more certificates than are read");
        }
        all.push(one.to_vec());
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
    use proptest::prelude::*;

    use super::*;
    use crate::sequence;

    #[test]
    fn a_chain_is_cut_into_its_certificates() {
        let (short, long) = (sequence(&[b"leaf"]), sequence(&[&[7; 700]]));
        let both = [short.clone(), long.clone()].concat();
        assert_eq!(certificates(&both).unwrap(), [short, long]);
        assert!(certificates(&[]).unwrap().is_empty());
        for wrong in [
            &both[..both.len() - 1],
            &both[1..],
            &[0x30],
            &[0x30, 0x81, 0x05, 1, 2, 3, 4, 5],
            &[0x30, 0x84, 0, 0, 0, 0],
        ] {
            assert!(certificates(wrong).is_err(), "{wrong:?}");
        }
        assert!(certificates(&[0x30, 0].repeat(MAX_CERTIFICATES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_input_is_split_without_loss_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(all) = certificates(&bytes) {
                prop_assert_eq!(all.concat(), bytes);
            }
        }
    }
}
