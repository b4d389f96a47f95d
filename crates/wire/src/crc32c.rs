//! The checksum CRC32C (RFC 3720 appendix B.4), bit by bit: it is needed once for some connections, over a few hundred bytes.

/// The polynomial, with its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The checksum of all parts, one after the other.
pub(crate) fn crc32c<const N: usize>(parts: [&[u8]; N]) -> u32 {
    let mut crc = !0;
    for byte in parts.into_iter().flatten() {
        crc ^= u32::from(*byte);
        for _bit in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(crc32c([b"123456789"]), 0xe306_9283);
        assert_eq!(crc32c([&[0; 16], &[0; 16]]), 0x8a91_36aa);
        assert_eq!(crc32c([&[0xff; 32]]), 0x62a8_ab43);
        assert_eq!(crc32c([]), 0);
    }
}
