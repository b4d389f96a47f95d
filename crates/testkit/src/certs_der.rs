//! DER of certificates that tests need and that no library makes, written with `portcullis_der`.

use portcullis_der as der;
pub(crate) use portcullis_der::{bit_string, tag};

/// One value: tag, length, content.
pub(crate) fn tlv(tag: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    der::tlv(tag, &[content.as_ref()])
}

pub(crate) fn sequence<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> Vec<u8> {
    let parts: Vec<T> = parts.into_iter().collect();
    der::sequence(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// An object identifier from its dotted form.
pub(crate) fn oid(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u64> = dotted.split('.').map(|arc| arc.parse().unwrap()).collect();
    let mut content = vec![u8::try_from(arcs[0] * 40 + arcs[1]).unwrap()];
    for &arc in &arcs[2..] {
        let groups: Vec<u8> = (0..9).rev().map(|shift| u8::try_from((arc >> (7 * shift)) & 0x7f).unwrap()).collect();
        let first = groups.iter().position(|&group| group != 0).unwrap_or(groups.len() - 1);
        let significant = &groups[first..];
        for (index, group) in significant.iter().enumerate() {
            content.push(if index + 1 < significant.len() { group | 0x80 } else { *group });
        }
    }
    tlv(tag::OID, content)
}

/// A bit string of named flags; bit 0 is the first. DER wants no trailing zero bits.
pub(crate) fn named_bits(bits: &[u8]) -> Vec<u8> {
    let Some(highest) = bits.iter().max() else {
        return tlv(tag::BIT_STRING, [0]);
    };
    let mut bytes = vec![0_u8; usize::from(highest / 8) + 1];
    for bit in bits {
        bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    tlv(tag::BIT_STRING, [&[7 - highest % 8], bytes.as_slice()].concat())
}

/// A time as certificates have it.
pub(crate) fn time(unix: i64) -> Vec<u8> {
    der::time(time::OffsetDateTime::from_unix_timestamp(unix).unwrap())
}

/// A distinguished name, given as `CN=..` or `O=..`, several with commas between; the empty text is the empty name.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let attribute = |text: &str| {
        let (attribute, value) = text.split_once('=').unwrap();
        let attribute = match attribute {
            "CN" => "2.5.4.3",
            "O" => "2.5.4.10",
            other => panic!("attribute {other} is not known here"),
        };
        tlv(tag::SET, sequence([oid(attribute), tlv(tag::UTF8_STRING, value)]))
    };
    sequence(text.split(',').filter(|part| !part.is_empty()).map(attribute))
}

/// One block of PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let group = u32::from(chunk[0]) << 16
            | u32::from(chunk.get(1).copied().unwrap_or(0)) << 8
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        for index in 0..4_usize {
            if index <= chunk.len() {
                text.push(char::from(ALPHABET[usize::try_from(group >> (18 - 6 * index)).unwrap() & 0x3f]));
            } else {
                text.push('=');
            }
        }
    }
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
