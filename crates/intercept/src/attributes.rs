//! Netlink attributes: type, length, value, padded to four bytes (RFC 3549, section 2.3.2).

/// Set in the type of an attribute that holds others. The kernel does not always set it in its answers.
const NESTED: u16 = 0x8000;
/// The type itself, without that flag and the byte-order flag.
const TYPE: u16 = 0x3fff;
const HEADER: usize = 4;

/// One attribute that we send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Attribute {
    kind: u16,
    value: Value,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Value {
    Bytes(Vec<u8>),
    Nested(Vec<Attribute>),
}

impl Attribute {
    pub(crate) fn bytes(kind: u16, bytes: &[u8]) -> Self {
        Self { kind, value: Value::Bytes(bytes.to_vec()) }
    }

    /// nf_tables' integers are big-endian, unlike those of most of netlink.
    pub(crate) fn number(kind: u16, number: u32) -> Self {
        Self::bytes(kind, &number.to_be_bytes())
    }

    /// A string, with the byte that ends it.
    pub(crate) fn text(kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        Self { kind, value: Value::Bytes(bytes) }
    }

    pub(crate) fn nested(kind: u16, inner: impl Into<Vec<Self>>) -> Self {
        Self { kind, value: Value::Nested(inner.into()) }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let kind = match &self.value {
            Value::Bytes(_) => self.kind,
            Value::Nested(_) => self.kind | NESTED,
        };
        out.extend([0, 0]);
        out.extend(kind.to_ne_bytes());
        match &self.value {
            Value::Bytes(bytes) => out.extend(bytes),
            Value::Nested(inner) => inner.iter().for_each(|attribute| attribute.write(out)),
        }
        // Rules are short: an expression stays far below the 64 KiB that the length field can express.
        let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        if let Some(place) = out.get_mut(start..start + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        out.resize(out.len().next_multiple_of(HEADER), 0);
    }

    /// Whether the kernel's answer holds this value. Attributes that the kernel adds with its defaults are ignored.
    fn is(&self, value: &[u8]) -> bool {
        match &self.value {
            Value::Bytes(bytes) => bytes == value,
            Value::Nested(inner) => holds(value, inner),
        }
    }
}

/// Whether each of these attributes is there, in the same order, and none of its type besides.
pub(crate) fn holds(there: &[u8], wanted: &[Attribute]) -> bool {
    wanted.iter().all(|attribute| {
        let of_this_kind = || wanted.iter().filter(|other| other.kind == attribute.kind);
        let found: Vec<_> = parse(there).filter(|(kind, _)| *kind == attribute.kind).map(|(_, value)| value).collect();
        found.len() == of_this_kind().count() && of_this_kind().zip(found).all(|(wanted, value)| wanted.is(value))
    })
}

/// The first value of this type.
pub(crate) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    parse(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The attributes in these bytes, up to the first malformed one.
pub(crate) fn parse(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (&[length_low, length_high, kind_low, kind_high], _) = rest.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([length_low, length_high]));
        let value = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(HEADER)..).unwrap_or_default();
        Some((u16::from_ne_bytes([kind_low, kind_high]) & TYPE, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(attributes: &[Attribute]) -> Vec<u8> {
        let mut out = Vec::new();
        attributes.iter().for_each(|attribute| attribute.write(&mut out));
        out
    }

    #[test]
    fn an_attribute_is_length_type_value_and_padding() {
        let bytes = written(&[Attribute::text(3, "out")]);
        assert_eq!(bytes, [&8_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), b"out\0"].concat());
        let bytes = written(&[Attribute::bytes(3, &[7])]);
        assert_eq!(bytes, [&5_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), &[7, 0, 0, 0]].concat());
        let nested = written(&[Attribute::nested(1, [Attribute::number(2, 5)])]);
        let head = [12_u16.to_ne_bytes(), 0x8001_u16.to_ne_bytes()].concat();
        assert_eq!(nested, [&head[..], &8_u16.to_ne_bytes(), &2_u16.to_ne_bytes(), &[0, 0, 0, 5]].concat());
    }

    #[test]
    fn what_the_kernel_adds_is_no_difference_and_what_it_changes_is() {
        let wanted = [Attribute::nested(1, [Attribute::number(1, 8)]), Attribute::nested(1, [Attribute::text(2, "a")])];
        let added = [
            Attribute::number(9, 1),
            Attribute::nested(1, [Attribute::number(1, 8), Attribute::number(7, 0)]),
            Attribute::nested(1, [Attribute::text(2, "a")]),
        ];
        assert!(holds(&written(&wanted), &wanted));
        assert!(holds(&written(&added), &wanted));
        let [first, second] = wanted.clone();
        let third = Attribute::nested(1, []);
        for changed in [vec![first.clone()], vec![second.clone(), first.clone()], vec![first, second, third], vec![]] {
            assert!(!holds(&written(&changed), &wanted), "{changed:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec((0_u16..0x3fff, any::<Vec<u8>>()), 0..9)) {
            let attributes: Vec<_> = values.iter().map(|(kind, value)| Attribute::bytes(*kind, value)).collect();
            let bytes = written(&attributes);
            let read: Vec<_> = parse(&bytes).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn no_answer_is_too_strange(bytes: Vec<u8>) {
            prop_assert!(parse(&bytes).count() <= bytes.len());
        }
    }
}
