//! Writing DER, by hand: the certificates that tests need are the ones that no library wants to make.

/// Tags that are used more than once.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
}

/// One value: tag, length, content.
pub(crate) fn tlv(tag: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut out = vec![tag];
    match content.len() {
        short @ ..0x80 => out.push(u8::try_from(short).unwrap()),
        long => {
            let bytes = long.to_be_bytes();
            let significant = &bytes[bytes.iter().position(|&byte| byte != 0).unwrap()..];
            out.push(0x80 | u8::try_from(significant.len()).unwrap());
            out.extend(significant);
        }
    }
    out.extend(content);
    out
}

pub(crate) fn sequence<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> Vec<u8> {
    let content: Vec<u8> = parts.into_iter().flat_map(|part| part.as_ref().to_vec()).collect();
    tlv(tag::SEQUENCE, content)
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

/// A bit string without unused bits.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(tag::BIT_STRING, [&[0], bytes].concat())
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

/// A time as certificates have it: two digits of the year up to 2049, four from 2050.
pub(crate) fn time(unix: i64) -> Vec<u8> {
    let at = time::OffsetDateTime::from_unix_timestamp(unix).unwrap();
    let (month, day, hour, minute, second) = (u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    match at.year() {
        year @ 1950..2050 => tlv(0x17, format!("{:02}{rest}", year % 100)),
        year => tlv(0x18, format!("{year:04}{rest}")),
    }
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
