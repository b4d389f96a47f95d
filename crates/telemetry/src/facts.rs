//! Small facts about a connection, in types that keep its record small: every open connection holds one.

use std::num::NonZero;

/// What is known of the server name in the ClientHello.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ServerName {
    /// The ClientHello was not read.
    #[default]
    Unread,
    /// There is none.
    Absent,
    /// There is one that is too long for a name, or not printable.
    Unusable,
    /// The name, in lower case: names of hosts do not differ by case (RFC 4343), and Envoy compares them so.
    Name(String),
}

impl ServerName {
    /// What a ClientHello that was read says.
    #[must_use]
    pub fn read(name: Option<String>) -> Self {
        name.map_or(Self::Absent, |mut name| {
            name.make_ascii_lowercase();
            Self::Name(name)
        })
    }

    /// The name, if there is one and it was read.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Unread | Self::Absent | Self::Unusable => None,
        }
    }
}

/// The index of a rule in its policy, from 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RuleIndex(NonZero<u16>);

impl RuleIndex {
    /// `None` for an index that is too large to be told, behind 65,534 others.
    #[must_use]
    pub fn new(index: usize) -> Option<Self> {
        u16::try_from(index).ok()?.checked_add(1).and_then(NonZero::new).map(Self)
    }

    /// The index.
    #[must_use]
    pub const fn get(self) -> u16 {
        // Not zero.
        self.0.get().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_as_it_was() {
        assert_eq!([0, 1, 65_534].map(|index| RuleIndex::new(index).unwrap().get()), [0, 1, 65_534]);
        assert_eq!(RuleIndex::new(65_535), None);
        assert_eq!((size_of::<Option<RuleIndex>>(), size_of::<ServerName>()), (2, size_of::<String>()));
    }
}
