use super::*;
use crate::state::ReportedBundle;

const NOW: i64 = 1_800_000_000;
const PUBLISHED: i64 = NOW - 1000;

fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
}

fn key(number: u8) -> KeyHash {
    KeyHash::parse(&format!("{number:02x}").repeat(32)).unwrap()
}

/// The recorded state of some instances.
#[derive(Default)]
struct Fleet {
    identities: BTreeMap<SpiffeId, Identity>,
    instances: BTreeMap<KeyHash, Instance>,
}

impl Fleet {
    /// Adds an instance with an optional report, and a certificate below a root with an expiry.
    fn with(mut self, name: &str, reported: Option<(&str, i64)>, root: &str, until: i64) -> Self {
        let known = self.identities.entry(id(name)).or_default();
        known.not_after_unix = known.not_after_unix.max(until);
        let below = known.below.entry(root.to_owned()).or_default();
        *below = (*below).max(until);
        let mut instance = Instance::new(id(name));
        (instance.not_after_unix, instance.last_seen_unix) = (until, NOW - 7);
        instance.reported = reported.map(|(digest, unix)| ReportedBundle { digest: digest.to_owned(), unix });
        let number = u8::try_from(self.instances.len()).unwrap();
        self.instances.insert(key(number), instance);
        self
    }

    fn decide<T>(&self, assumed: &[&str], decide: impl FnOnce(RotationSnapshot<'_>) -> T) -> T {
        let new = ["b".to_owned()].into();
        let (ids, instances) = assumed.iter().partition::<Vec<&str>, _>(|name| name.len() < 16);
        let ids = ids.into_iter().map(id).collect();
        let assumed = Assumed { ids, instances: instances.into_iter().map(str::to_owned).collect() };
        decide(RotationSnapshot {
            identities: &self.identities,
            instances: &self.instances,
            new_anchors: &new,
            digest: "ab",
            published_unix: PUBLISHED,
            assumed: &assumed,
            now_unix: NOW,
        })
    }
}

fn lacks(result: Result<(), NotReady>) -> Vec<(SpiffeId, BlockReason)> {
    result.unwrap_err().behind.into_iter().map(|behind| (behind.id, behind.reason)).collect()
}

fn promote(seen: RotationSnapshot<'_>) -> Result<(), NotReady> {
    may_promote(seen, 300)
}

#[test]
fn b_signs_once_every_instance_has_reported_or_is_assumed() {
    let all = Fleet::default()
        .with("up-to-date", Some(("ab", NOW - 5)), "a", NOW + 100)
        .with("other", Some(("a", NOW - 5)), "a", NOW + 100)
        .with("silent", None, "a", NOW + 100)
        .with("ended", None, "a", NOW - 61);
    let both = [(id("other"), BlockReason::OtherBundles), (id("silent"), BlockReason::Silent)];
    assert_eq!(lacks(all.decide(&[], promote)), both);
    assert_eq!(lacks(all.decide(&["silent"], promote)), both[..1]);
    assert_eq!(all.decide(&["silent", "other"], promote), Ok(()));
    // A clock that is a minute behind takes it for valid.
    let just = Fleet::default().with("ended", None, "a", NOW - 60);
    assert_eq!(lacks(just.decide(&[], promote)).len(), 1);
}

/// Two instances of one identity do not speak for each other.
#[test]
fn one_instance_that_is_behind_is_not_hidden_by_another_one() {
    let all = Fleet::default().with("cart", Some(("a", NOW - 900)), "a", NOW + 100).with(
        "cart",
        Some(("ab", NOW - 5)),
        "a",
        NOW + 200,
    );
    let behind = all.decide(&[], promote).unwrap_err().behind;
    assert_eq!(behind.len(), 1, "{behind:?}");
    assert_eq!(
        (behind[0].instance, behind[0].until_unix, behind[0].last_seen_unix),
        (Some(key(0)), NOW + 100, NOW - 7)
    );
    assert_eq!(lacks(all.decide(&[&Instance::name(&key(1))], promote)).len(), 1, "that is the other one");
    assert_eq!(all.decide(&[&Instance::name(&key(0))], promote), Ok(()));
    assert_eq!(all.decide(&["cart"], promote), Ok(()));
    let ended = Fleet::default().with("cart", Some(("a", NOW - 900)), "a", NOW - 61).with(
        "cart",
        Some(("ab", NOW - 5)),
        "a",
        NOW + 200,
    );
    assert_eq!(ended.decide(&[], promote), Ok(()));
}

/// The same root may have been published before, and taken back.
#[test]
fn a_report_from_before_b_was_published_does_not_count() {
    let reported = |unix| Fleet::default().with("cart", Some(("ab", unix)), "a", NOW + 100).decide(&[], promote);
    assert_eq!(lacks(reported(PUBLISHED)), [(id("cart"), BlockReason::OtherBundles)]);
    assert_eq!(reported(PUBLISHED + 1), Ok(()));
}

#[test]
fn b_signs_no_earlier_than_three_refresh_hints_after_it_was_published() {
    let promote = |hint| move |seen: RotationSnapshot<'_>| may_promote(seen, hint);
    let empty = Fleet::default();
    assert_eq!(empty.decide(&[], promote(334)), Err(NotReady { behind: Vec::new(), seconds_left: 2 }));
    assert_eq!(empty.decide(&[], promote(333)), Ok(()));
    // Both reasons are reported together.
    let silent = Fleet::default().with("silent", None, "a", NOW + 100).decide(&[], promote(334)).unwrap_err();
    assert_eq!((silent.behind.len(), silent.seconds_left), (1, 2));
}

#[test]
fn a_is_removed_when_the_last_certificate_below_it_has_expired_whatever_is_assumed() {
    let reported = Some(("ab", NOW - 5));
    assert_eq!(Fleet::default().with("x", reported, "b", NOW + 100).decide(&[], may_finish), Ok(()));
    for root in ["a", ""] {
        let with = |until| Fleet::default().with("x", reported, "b", NOW + 100).with("x", reported, root, until);
        let refused = with(NOW + 30).decide(&["x"], may_finish).unwrap_err();
        assert_eq!((refused.seconds_left, refused.behind[0].last_seen_unix), (91, NOW - 7), "{root:?}");
        let refused = with(NOW - 60).decide(&["x"], may_finish);
        assert_eq!(refused.as_ref().unwrap_err().seconds_left, 1);
        assert_eq!(lacks(refused), [(id("x"), BlockReason::Certificate)], "{root:?}");
        assert_eq!(with(NOW - 61).decide(&[], may_finish), Ok(()), "{root:?}");
    }
    let behind = Fleet::default().with("x", Some(("a", NOW - 5)), "b", NOW + 100).decide(&[], may_finish).unwrap_err();
    assert_eq!((behind.behind[0].reason, behind.seconds_left), (BlockReason::OtherBundles, 0));
}

#[test]
fn b_is_withdrawn_when_no_certificate_below_it_is_valid() {
    let with =
        |until| Fleet::default().with("old", None, "a", NOW + 100).with("new", Some(("ab", NOW - 5)), "b", until);
    assert_eq!(lacks(with(NOW + 100).decide(&["new"], may_abort)), [(id("new"), BlockReason::Certificate)]);
    assert_eq!(with(NOW - 61).decide(&[], may_abort), Ok(()));
}
