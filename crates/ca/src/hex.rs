//! Lower-case hexadecimal.

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// Text of exactly `N` bytes, in lower case.
pub(crate) fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let text = super::text(&[0, 0x9a, 0xff]);
        assert_eq!(text, "009aff");
        assert_eq!(super::parse::<3>(&text), Some([0, 0x9a, 0xff]));
        for wrong in ["009aF0", "009af", "009aff00", "009ag0", ""] {
            assert_eq!(super::parse::<3>(wrong), None, "{wrong}");
        }
    }
}
