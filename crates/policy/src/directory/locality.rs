//! Where a workload runs, and how far another one is from it.

use std::fmt;

/// `REGION`, `REGION/ZONE` or `REGION/ZONE/SUBZONE`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Locality {
    region: String,
    zone: Option<String>,
    subzone: Option<String>,
}

impl Locality {
    /// Reads one to three names, parted by slashes; each has at least one character, and no white space or star.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = |name: &str| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '*');
        let mut names = text.split('/');
        let (region, zone, subzone) = (names.next()?, names.next(), names.next());
        let valid = names.next().is_none() && [Some(region), zone, subzone].into_iter().flatten().all(is_name);
        let owned = |name: Option<&str>| name.map(str::to_owned);
        valid.then(|| Self { region: region.to_owned(), zone: owned(zone), subzone: owned(subzone) })
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// How far `other` is: 0 in the same subzone, 1 in the same zone, 2 in the same region, else 3. What neither names is the
    /// same.
    #[must_use]
    pub fn distance(&self, other: &Self) -> u8 {
        match (self.region == other.region, self.zone == other.zone, self.subzone == other.subzone) {
            (false, _, _) => FARTHEST,
            (true, false, _) => 2,
            (true, true, false) => 1,
            (true, true, true) => 0,
        }
    }
}

/// The distance to another region, or to an unknown place.
pub(super) const FARTHEST: u8 = 3;

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        [&self.zone, &self.subzone].into_iter().flatten().try_for_each(|name| write!(f, "/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locality_has_one_to_three_names() {
        for good in ["eu", "eu/eu-1", "eu/eu-1/rack.2"] {
            assert_eq!(Locality::parse(good).unwrap().to_string(), good);
        }
        for bad in ["", "/", "eu/", "/a", "eu//a", "a/b/c/d", "eu/*", "a b"] {
            assert_eq!(Locality::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_distance_grows_with_what_differs() {
        let distance = |one: &str, other: &str| {
            let (one, other) = (Locality::parse(one).unwrap(), Locality::parse(other).unwrap());
            assert_eq!(one.distance(&other), other.distance(&one));
            one.distance(&other)
        };
        assert_eq!(distance("eu/1/a", "eu/1/a"), 0);
        assert_eq!(distance("eu/1/a", "eu/1/b"), 1);
        assert_eq!(distance("eu/1/a", "eu/1"), 1);
        assert_eq!(distance("eu/1/a", "eu/2/a"), 2);
        assert_eq!(distance("eu", "eu"), 0);
        assert_eq!(distance("eu/1", "us/1"), 3);
    }
}
