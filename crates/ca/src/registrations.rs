//! `identities.yaml`: the registered identities, their lifetimes, and the trust bundles to distribute.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_identity::{KeyType, SpiffeId, TrustDomain};
use portcullis_yaml::{Cursor, Problem, Problems};

use crate::leaf::MIN_TTL;

/// Reason code of a value that has the right type but not the right form.
const INVALID: &str = "invalid-value";
const DAY: u64 = 24 * 3600;

/// The default lifetime of a certificate.
const TTL: Duration = Duration::from_secs(DAY);
/// The most identities that one CA serves.
const MAX_IDENTITIES: usize = 100_000;

/// One workload that may have certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registration {
    /// Lifetime of its certificates if it requests none: its own `ttl`, or that of `defaults`, if set.
    pub ttl: Option<Duration>,
    /// The maximum lifetime that it may request, if `defaults` sets one.
    pub max_ttl: Option<Duration>,
    /// The maximum lifetime while no `max_ttl` is set: a day, or `defaults.ttl`.
    pub allowed: Duration,
    /// The kinds of keys that it may have; every kind if this is empty.
    pub key_types: Vec<KeyType>,
}

impl Registration {
    /// The lifetime of a certificate: the requested one (in seconds; zero or less means none), within [1 m, max]. Where this
    /// file sets none, `default_lifetimes` apply.
    #[must_use]
    pub fn lifetime(&self, asked_seconds: i64, default_lifetimes: DefaultLifetimes) -> Duration {
        let asked = u64::try_from(asked_seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let ttl = self.ttl.or(default_lifetimes.ttl).unwrap_or(TTL);
        let max = self.max_ttl.or(default_lifetimes.max_ttl).unwrap_or_else(|| self.allowed.max(ttl));
        asked.unwrap_or(ttl).min(max).max(MIN_TTL)
    }

    /// Whether a key of this kind may be certified.
    #[must_use]
    pub fn accepts(&self, kind: KeyType) -> bool {
        self.key_types.is_empty() || self.key_types.contains(&kind)
    }
}

/// Lifetimes from resources or the environment, where the registrations set none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DefaultLifetimes {
    /// The lifetime if a request asks for none.
    pub ttl: Option<Duration>,
    /// The longest lifetime that may be requested.
    pub max_ttl: Option<Duration>,
}

/// How many certificates are issued at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// To one identity, in a minute.
    pub per_identity_per_minute: u32,
    /// To all, in a second.
    pub total_per_second: u32,
}

/// The whole file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registrations {
    /// The trust domain of a CA whose certificate names none.
    pub trust_domain: Option<TrustDomain>,
    /// Bundles of other trust domains, to be handed out with our own.
    pub trust_bundles: BTreeMap<TrustDomain, PathBuf>,
    /// How often callers should poll for bundles.
    pub refresh_hint: Duration,
    /// How much is issued at most.
    pub limits: Limits,
    identities: BTreeMap<SpiffeId, Registration>,
}

impl Registrations {
    /// Reads the file. Relative paths in it are taken from `folder`.
    ///
    /// # Errors
    /// Every problem of the file, each with its position, its field and what would be right.
    pub fn read(text: &[u8], folder: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::new();
        let parsed = portcullis_yaml::parse(text);
        problems.extend(parsed.problems);
        let read = match parsed.documents.as_slice() {
            [document] => Parser { folder }.file(&Cursor::root(document), &mut problems),
            documents => {
                let count = documents.len();
                if problems.is_empty() {
                    let message =
                        format!("registrations are one YAML document with `identities:`, and this file has {count}");
                    let (position, field) = (portcullis_yaml::Position::START, String::new());
                    problems.push(Problem { position, field, reason: portcullis_yaml::reason::WRONG_TYPE, message });
                }
                None
            }
        };
        match read {
            Some(read) if problems.is_empty() => Ok(read),
            _ => Err(problems.into_vec()),
        }
    }

    /// The registration of an ID.
    #[must_use]
    pub fn get(&self, id: &SpiffeId) -> Option<&Registration> {
        self.identities.get(id)
    }

    /// The same without some of them.
    pub(crate) fn without(mut self, ids: &[&SpiffeId]) -> Self {
        self.identities.retain(|id, _| !ids.contains(&id));
        self
    }

    /// Every registration, in the order of IDs.
    pub fn iter(&self) -> impl Iterator<Item = (&SpiffeId, &Registration)> {
        self.identities.iter()
    }
}

#[derive(Clone, Copy, Default)]
struct Defaults {
    ttl: Option<Duration>,
    max_ttl: Option<Duration>,
}

impl Defaults {
    /// The maximum lifetime while no `maxTtl` is set.
    fn allowed(self) -> Duration {
        self.ttl.unwrap_or(TTL).max(TTL)
    }
}

struct Parser<'a> {
    folder: &'a Path,
}

impl Parser<'_> {
    fn file(&self, root: &Cursor<'_>, problems: &mut Problems) -> Option<Registrations> {
        let known = ["trustDomain", "trustBundles", "refreshHint", "defaults", "limits", "identities"];
        let fields = root.fields(&known, problems)?;
        let trust_domain = fields.get("trustDomain").and_then(|at| trust_domain(&at, problems));
        let trust_bundles = fields.get("trustBundles").and_then(|at| self.trust_bundles(&at, problems));
        let refresh_hint = fields.get("refreshHint").and_then(|at| duration_of(&at, 1, problems));
        let defaults = fields.get("defaults").and_then(|at| defaults(&at, problems));
        let defaults = defaults.unwrap_or_default();
        let limits = fields.get("limits").and_then(|at| limits(&at, problems));
        let identities = fields.require("identities", problems).and_then(|at| identities(&at, defaults, problems))?;
        if let Some(domain) = &trust_domain
            && let Some(foreign) = identities.keys().find(|id| id.domain_str() != domain.as_str())
        {
            root.report(
                INVALID,
                format!("{foreign} is not of trust domain {domain}, which trustDomain says"),
                problems,
            );
        }
        Some(Registrations {
            trust_domain,
            trust_bundles: trust_bundles.unwrap_or_default(),
            refresh_hint: refresh_hint.unwrap_or(Duration::from_secs(300)),
            limits: limits.unwrap_or(Limits { per_identity_per_minute: 30, total_per_second: 200 }),
            identities,
        })
    }

    fn trust_bundles(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<BTreeMap<TrustDomain, PathBuf>> {
        let mut bundles = BTreeMap::new();
        for (key, file) in at.entries(problems)? {
            match (TrustDomain::parse(key.text()), file.string(problems)) {
                (Ok(domain), Some(path)) if !path.is_empty() => {
                    bundles.insert(domain, self.folder.join(path));
                }
                (Ok(_), Some(_)) => file.report(INVALID, "is not a path", problems),
                (Ok(_), None) => {}
                (Err(error), _) => {
                    file.report(error.class(), format!("the key is not a trust domain: {error}"), problems);
                }
            }
        }
        Some(bundles)
    }
}

fn trust_domain(at: &Cursor<'_>, problems: &mut Problems) -> Option<TrustDomain> {
    let text = at.string(problems)?;
    let parsed = TrustDomain::parse(text);
    if let Err(error) = &parsed {
        let text = portcullis_yaml::printable(text);
        at.report(error.class(), format!("\"{text}\" is not a trust domain: {error}"), problems);
    }
    parsed.ok()
}

fn defaults(at: &Cursor<'_>, problems: &mut Problems) -> Option<Defaults> {
    let fields = at.fields(&["ttl", "maxTtl"], problems)?;
    let mut read = |name| match fields.get(name) {
        None => Some(None),
        Some(at) => duration(&at, problems).map(Some),
    };
    let (ttl, max_ttl) = (read("ttl"), read("maxTtl"));
    let (ttl, max_ttl) = (ttl?, max_ttl?);
    // With no ttl written, what resources say may be cut.
    if ttl.zip(max_ttl).is_some_and(|(ttl, max)| ttl > max) {
        at.report(INVALID, "ttl is longer than maxTtl", problems);
    }
    Some(Defaults { ttl, max_ttl })
}

fn limits(at: &Cursor<'_>, problems: &mut Problems) -> Option<Limits> {
    let fields = at.fields(&["perIdentityPerMinute", "totalPerSecond"], problems)?;
    let mut count = |name, default| match fields.get(name) {
        None => Some(default),
        Some(at) => at.integer(1, 100_000, problems).and_then(|number| u32::try_from(number).ok()),
    };
    let (per_identity_per_minute, total_per_second) = (count("perIdentityPerMinute", 30), count("totalPerSecond", 200));
    Some(Limits { per_identity_per_minute: per_identity_per_minute?, total_per_second: total_per_second? })
}

fn identities(
    at: &Cursor<'_>,
    defaults: Defaults,
    problems: &mut Problems,
) -> Option<BTreeMap<SpiffeId, Registration>> {
    let items = at.items(problems)?;
    if items.len() > MAX_IDENTITIES {
        at.report(INVALID, format!("{} identities; at most {MAX_IDENTITIES} are served", items.len()), problems);
        return None;
    }
    let mut identities = BTreeMap::new();
    for item in items {
        let Some((id, registration)) = identity(&item, defaults, problems) else {
            continue;
        };
        if identities.insert(id.clone(), registration).is_some() {
            item.report("duplicate-id", format!("{id} is registered twice"), problems);
        }
    }
    Some(identities)
}

fn identity(at: &Cursor<'_>, defaults: Defaults, problems: &mut Problems) -> Option<(SpiffeId, Registration)> {
    let fields = at.fields(&["id", "ttl", "keyTypes"], problems)?;
    let id = fields.require("id", problems).and_then(|at| spiffe_id(&at, problems));
    let ttl = match fields.get("ttl") {
        None => Some(defaults.ttl),
        Some(at) => duration(&at, problems).and_then(|ttl| {
            let max = defaults.max_ttl.unwrap_or_else(|| defaults.allowed());
            let fits = ttl <= max;
            if !fits {
                let max = max.as_secs();
                at.report(
                    INVALID,
                    format!("is longer than {max}s, the longest that is allowed; raise defaults.maxTtl to allow more"),
                    problems,
                );
            }
            fits.then_some(Some(ttl))
        }),
    };
    let mut key_types = Vec::new();
    if let Some(at) = fields.get("keyTypes") {
        let items = at.items(problems)?;
        key_types.extend(items.iter().filter_map(|item| key_type(item, problems)));
        if items.is_empty() {
            at.report(INVALID, "names no kind of key; leave it out to accept every kind", problems);
        }
    }
    let (max_ttl, allowed) = (defaults.max_ttl, defaults.allowed());
    Some((id?, Registration { ttl: ttl?, max_ttl, allowed, key_types }))
}

fn spiffe_id(at: &Cursor<'_>, problems: &mut Problems) -> Option<SpiffeId> {
    let text = at.string(problems)?;
    let shown = portcullis_yaml::printable(text);
    match SpiffeId::parse(text) {
        Ok(id) if id.path().is_empty() => {
            at.report("leaf-no-path", format!("\"{shown}\" names a trust domain and no workload"), problems);
            None
        }
        Ok(id) if id.path() == "/ns/portcullis-system/sa/ca" => {
            at.report(INVALID, format!("\"{shown}\" is the CA itself"), problems);
            None
        }
        Ok(id) => Some(id),
        Err(error) => {
            at.report(error.class(), format!("\"{shown}\" is not a SPIFFE ID: {error}"), problems);
            None
        }
    }
}

fn key_type(at: &Cursor<'_>, problems: &mut Problems) -> Option<KeyType> {
    let text = at.string(problems)?;
    let found = KeyType::named(text);
    if found.is_none() {
        let known = KeyType::ALL.map(|(name, _)| name).join(", ");
        let text = portcullis_yaml::printable(text);
        at.report(INVALID, format!("\"{text}\" is no kind of key; write one of: {known}"), problems);
    }
    found
}

/// A lifetime such as `90m`, `24h` or `7d`: one number and one unit, a minute at least and ten years at most.
fn duration(at: &Cursor<'_>, problems: &mut Problems) -> Option<Duration> {
    duration_of(at, MIN_TTL.as_secs(), problems)
}

fn duration_of(at: &Cursor<'_>, least: u64, problems: &mut Problems) -> Option<Duration> {
    let text = at.string(problems)?;
    let parsed = parse_duration(text).filter(|ttl| (least..=3650 * DAY).contains(&ttl.as_secs()));
    if parsed.is_none() {
        let text = portcullis_yaml::printable(text);
        let unit = if least < 60 { "second" } else { "minute" };
        let message =
            format!("\"{text}\" is not a duration of a {unit} or more; write a number and a unit: 90s, 90m, 24h, 7d");
        at.report(INVALID, message, problems);
    }
    parsed
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY,
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_secs(digits.parse::<u64>().ok()?.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Registrations, Vec<String>> {
        Registrations::read(text.as_bytes(), Path::new("/ca"))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_written_has_a_default() {
        let read = read(
            "defaults: {ttl: 1h, maxTtl: 12h}\ntrustBundles: {partner.test: partner.pem}\nidentities:\n\
             - id: spiffe://cluster.local/ns/shop/sa/cart\n\
             - id: spiffe://cluster.local/ns/shop/sa/web\n  ttl: 90m\n  keyTypes: [ecdsa-p256, rsa-2048]\n",
        )
        .unwrap();
        let get = |name: &str| {
            read.get(&SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()).cloned()
        };
        let (cart, web) = (get("cart").unwrap(), get("web").unwrap());
        assert_eq!([cart.ttl, web.ttl].map(Option::unwrap).map(|ttl| ttl.as_secs()), [3600, 5400]);
        assert!(cart.accepts(KeyType::Ed25519) && web.accepts(KeyType::Rsa2048) && !web.accepts(KeyType::Ed25519));
        assert_eq!(get("db"), None);
        assert_eq!(read.trust_bundles.values().next().unwrap(), Path::new("/ca/partner.pem"));
        assert_eq!(read.limits, Limits { per_identity_per_minute: 30, total_per_second: 200 });
    }

    #[test]
    fn a_lifetime_is_what_is_asked_for_within_bounds() {
        let (ttl, max_ttl) = (Some(Duration::from_secs(3600)), Some(Duration::from_secs(7200)));
        let registration = Registration { ttl, max_ttl, allowed: TTL, key_types: Vec::new() };
        let (one, other) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(90_000)));
        // The file takes precedence over other sources.
        for default_lifetimes in [
            DefaultLifetimes::default(),
            DefaultLifetimes { ttl: one, max_ttl: one },
            DefaultLifetimes { ttl: other, max_ttl: other },
        ] {
            for (asked, given) in [(0, 3600), (-5, 3600), (1, 60), (600, 600), (7201, 7200), (i64::MAX, 7200)] {
                assert_eq!(registration.lifetime(asked, default_lifetimes).as_secs(), given, "{asked}");
            }
        }
    }

    #[test]
    fn default_lifetimes_apply_where_the_file_sets_none() {
        let silent = Registration { ttl: None, max_ttl: None, allowed: TTL, key_types: Vec::new() };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (ttl, max_ttl, asked, given) in [
            (None, None, 0, DAY),
            (None, None, 90_000, DAY),
            (seconds(600), None, 0, 600),
            (seconds(600), None, 7200, 7200),
            (seconds(30), None, 0, 60),
            // A longer one than a day is what may be asked for, too.
            (seconds(2 * DAY), None, 0, 2 * DAY),
            (seconds(2 * DAY), None, 200_000, 2 * DAY),
            (seconds(7200), seconds(3600), 0, 3600),
            (None, seconds(30 * DAY), 1_000_000, 1_000_000),
            (None, seconds(30 * DAY), 0, DAY),
        ] {
            assert_eq!(
                silent.lifetime(asked, DefaultLifetimes { ttl, max_ttl }).as_secs(),
                given,
                "{ttl:?} {max_ttl:?} {asked}"
            );
        }
        let own = Registration { allowed: 2 * TTL, ..silent };
        assert_eq!(own.lifetime(i64::MAX, DefaultLifetimes::default()), 2 * TTL);
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_position() {
        let problems = read(
            "limits: {perIdentityPerMinute: 0}\nidentities:\n- id: spiffe://Cluster.local/x\n- ttl: 24\n\
             - id: spiffe://a.test/x\n  ttl: 48h\n  keyTypes: [rsa]\n- id: spiffe://a.test\n- id: spiffe://a.test/y\n\
             - id: spiffe://a.test/y\n  tll: 1h\n- id: spiffe://a.test/ns/portcullis-system/sa/ca\n",
        )
        .unwrap_err();
        let all = problems.join("\n");
        for part in [
            "1:32: limits.perIdentityPerMinute:",
            "3:7: identities[0].id:",
            "4:3: identities[1].id: \"id\" must be set",
            "identities[1].ttl",
            "6:8: identities[2].ttl: is longer than 86400s, the longest that is allowed; raise defaults.maxTtl to allow more",
            "7:14: identities[2].keyTypes[0]: \"rsa\" is no kind of key",
            "identities[3].id: \"spiffe://a.test\" names a trust domain",
            "identities[5]",
            "is the CA itself",
        ] {
            assert!(all.contains(part), "{part:?} is not in\n{all}");
        }
        assert!(
            read("identities:\n- id: spiffe://a.test/y\n- id: spiffe://a.test/y\n").unwrap_err()[0].contains("twice")
        );
        assert!(read("").unwrap_err()[0].contains("identities"));
        assert!(read("trustDomain: b.test\nidentities:\n- id: spiffe://a.test/y\n").is_err());
    }
}
