//! Whether the next phase may begin: a decision about what the state knows, without clock or files.

use std::collections::BTreeSet;

use portcullis_identity::SpiffeId;

use super::Identities;

/// A certificate counts as valid so long after its end, in seconds: the clock of a peer may be behind.
const SKEW: i64 = 60;
/// B is published for so many refresh hints before it signs (SPIFFE Federation 4.1).
const HINTS: i64 = 3;

/// What is lacking.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lack {
    /// It never said which bundles it uses; Istio's agents never do.
    Silent,
    /// It last said that it uses others.
    OtherBundles,
    /// It has a certificate below the root that would be dropped.
    Certificate,
}

impl Lack {
    /// In a table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::OtherBundles => "other-bundles",
            Self::Certificate => "certificate",
        }
    }
}

/// An identity that would be hurt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Behind {
    /// Whose.
    pub id: SpiffeId,
    /// Why.
    pub lack: Lack,
    /// Last second of the certificate that counts, in Unix time.
    pub until_unix: i64,
    /// The digest that it last told.
    pub told: Option<String>,
}

/// Why the next phase may not begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// B is published for too short a time; so many seconds are left.
    TooEarly(i64),
    /// These would be hurt.
    Behind(Vec<Behind>),
}

/// What is known, and since when.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What the state knows of each identity.
    pub identities: &'a Identities,
    /// The roots of B.
    pub new_anchors: &'a BTreeSet<String>,
    /// The digest of what is published now.
    pub digest: &'a str,
    /// Whose word is not waited for. It does not help against a certificate that is valid.
    pub assumed: &'a BTreeSet<SpiffeId>,
    /// In Unix time.
    pub now_unix: i64,
}

impl Seen<'_> {
    /// Everybody with a valid certificate who has not said that it uses what is published.
    fn not_told(&self) -> impl Iterator<Item = Behind> + '_ {
        self.identities.iter().filter_map(|(id, known)| {
            let lack = match &known.bundle {
                Some(told) if told == self.digest => return None,
                Some(_) => Lack::OtherBundles,
                None => Lack::Silent,
            };
            let counts = self.valid(known.not_after_unix) && !self.assumed.contains(id);
            let behind =
                || Behind { id: id.clone(), lack, until_unix: known.not_after_unix, told: known.bundle.clone() };
            counts.then(behind)
        })
    }

    /// Everybody with a valid certificate below B, or below anything else.
    fn holders(&self, below_new: bool) -> impl Iterator<Item = Behind> + '_ {
        self.identities.iter().filter_map(move |(id, known)| {
            let below = known.below.iter().filter(|(root, _)| self.new_anchors.contains(*root) == below_new);
            let until_unix = below.map(|(_, until)| *until).max().filter(|until| self.valid(*until))?;
            Some(Behind { id: id.clone(), lack: Lack::Certificate, until_unix, told: known.bundle.clone() })
        })
    }

    const fn valid(&self, until: i64) -> bool {
        until.saturating_add(SKEW) >= self.now_unix
    }
}

fn nobody(behind: Vec<Behind>) -> Result<(), Refused> {
    if behind.is_empty() { Ok(()) } else { Err(Refused::Behind(behind)) }
}

/// Whether B may sign: it is published long enough, and everybody trusts it.
///
/// # Errors
/// Why not.
pub fn may_promote(seen: Seen<'_>, published_unix: i64, refresh_hint: i64) -> Result<(), Refused> {
    nobody(seen.not_told().collect())?;
    let left = published_unix.saturating_add(refresh_hint.saturating_mul(HINTS)).saturating_sub(seen.now_unix);
    if left > 0 { Err(Refused::TooEarly(left)) } else { Ok(()) }
}

/// Whether A may go: nobody has a certificate below it, and everybody trusts B.
///
/// # Errors
/// Why not.
pub fn may_finish(seen: Seen<'_>) -> Result<(), Refused> {
    nobody(seen.holders(false).chain(seen.not_told()).collect())
}

/// Whether B may go again: nobody has a certificate below it. Whoever trusts A and B trusts A.
///
/// # Errors
/// Why not.
pub fn may_abort(seen: Seen<'_>) -> Result<(), Refused> {
    nobody(seen.holders(true).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Identity;

    const NOW: i64 = 1_800_000_000;

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
    }

    /// Name, what it told, root and end of its certificate.
    fn identities(all: &[(&str, Option<&str>, &str, i64)]) -> Identities {
        let one = |(name, told, root, until): &(&str, Option<&str>, &str, i64)| {
            let below = [((*root).to_owned(), *until)].into();
            (id(name), Identity { not_after_unix: *until, bundle: told.map(str::to_owned), below })
        };
        all.iter().map(one).collect()
    }

    fn decided<T>(all: &Identities, assumed: &[&str], decide: impl FnOnce(Seen<'_>) -> T) -> T {
        let (new, assumed) = (["b".to_owned()].into(), assumed.iter().map(|name| id(name)).collect());
        decide(Seen { identities: all, new_anchors: &new, digest: "ab", assumed: &assumed, now_unix: NOW })
    }

    fn lacks(result: Result<(), Refused>) -> Vec<(SpiffeId, Lack)> {
        match result {
            Err(Refused::Behind(list)) => list.into_iter().map(|behind| (behind.id, behind.lack)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn b_signs_once_everybody_with_a_certificate_has_told_or_is_assumed() {
        let all = identities(&[
            ("told", Some("ab"), "a", NOW + 100),
            ("other", Some("a"), "a", NOW + 100),
            ("silent", None, "a", NOW + 100),
            ("ended", None, "a", NOW - 61),
        ]);
        let promote = |seen: Seen<'_>| may_promote(seen, NOW - 1000, 300);
        assert_eq!(
            lacks(decided(&all, &[], promote)),
            [(id("other"), Lack::OtherBundles), (id("silent"), Lack::Silent)]
        );
        assert_eq!(lacks(decided(&all, &["silent"], promote)), [(id("other"), Lack::OtherBundles)]);
        assert_eq!(decided(&all, &["silent", "other"], promote), Ok(()));
        // A clock that is a minute behind takes it for valid.
        let just = identities(&[("ended", None, "a", NOW - 60)]);
        assert_eq!(lacks(decided(&just, &[], promote)).len(), 1);
    }

    #[test]
    fn b_signs_no_earlier_than_three_refresh_hints_after_it_was_published() {
        let all = Identities::new();
        assert_eq!(decided(&all, &[], |seen| may_promote(seen, NOW - 899, 300)), Err(Refused::TooEarly(1)));
        assert_eq!(decided(&all, &[], |seen| may_promote(seen, NOW - 900, 300)), Ok(()));
    }

    #[test]
    fn a_goes_when_the_last_certificate_below_it_has_ended_whatever_is_assumed() {
        let mut all = identities(&[("x", Some("ab"), "b", NOW + 100)]);
        assert_eq!(decided(&all, &[], may_finish), Ok(()));
        for root in ["a", ""] {
            all.get_mut(&id("x")).unwrap().below.insert(root.to_owned(), NOW - 60);
            assert_eq!(lacks(decided(&all, &["x"], may_finish)), [(id("x"), Lack::Certificate)], "{root:?}");
            all.get_mut(&id("x")).unwrap().below.insert(root.to_owned(), NOW - 61);
            assert_eq!(decided(&all, &[], may_finish), Ok(()), "{root:?}");
        }
        all.get_mut(&id("x")).unwrap().bundle = Some("a".to_owned());
        assert_eq!(lacks(decided(&all, &[], may_finish)), [(id("x"), Lack::OtherBundles)]);
    }

    #[test]
    fn b_goes_again_when_nobody_has_a_certificate_below_it() {
        let all = identities(&[("old", None, "a", NOW + 100), ("new", Some("ab"), "b", NOW + 100)]);
        assert_eq!(lacks(decided(&all, &["new"], may_abort)), [(id("new"), Lack::Certificate)]);
        let all = identities(&[("old", None, "a", NOW + 100), ("new", Some("ab"), "b", NOW - 61)]);
        assert_eq!(decided(&all, &[], may_abort), Ok(()));
    }
}
