//! Join tokens in the state: what each may be redeemed for, and how often it was.
//!
//! Records can come twice (a snapshot may hold what the journal repeats), so each says what is left, not what was taken.

use std::collections::BTreeMap;

use portcullis_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::join::{JoinNumber, SecretHash};

/// How many are kept at once. The operator makes them, and none lasts longer than a week.
const MAX_TOKENS: usize = 1000;

/// A join token as the CA keeps it.
#[derive(Clone, Debug)]
pub struct JoinGrant {
    /// Its public number.
    pub number: JoinNumber,
    /// The hash of its secret.
    pub secret: SecretHash,
    /// The identities that it gives bootstrap tokens for.
    pub ids: Vec<SpiffeId>,
    /// How many hosts may still join with it.
    pub uses_left: u32,
    /// Its last second, in Unix time.
    pub expires_unix: i64,
    /// Whether the operator has revoked it.
    pub revoked: bool,
}

/// Why a join token gives nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JoinRefusal {
    /// No such number, or another secret. Which of them is not said.
    #[error("no such join token; one that has ended is forgotten after an hour")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired")]
    Expired,
    /// As many hosts have joined with it as it is for.
    #[error("the join token was used up")]
    UsedUp,
    /// The operator has revoked it.
    #[error("the join token was revoked")]
    Revoked,
    /// It is for others.
    #[error("the join token is not for {0}")]
    Identity(SpiffeId),
    /// There are enough of them.
    #[error("{MAX_TOKENS} join tokens are kept already; revoke some, or wait until they expire")]
    TooMany,
}

impl JoinRefusal {
    /// The stable class.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Unknown => "join-token-unknown",
            Self::Expired => "join-token-expired",
            Self::UsedUp => "join-token-used",
            Self::Revoked => "join-token-revoked",
            Self::Identity(_) => "join-token-identity",
            Self::TooMany => "join-tokens",
        }
    }
}

/// A grant on disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    number: String,
    secret: String,
    ids: Vec<String>,
    left: u32,
    until: i64,
    revoked: bool,
}

impl Line {
    fn of(grant: &JoinGrant) -> Self {
        let JoinGrant { number, secret, ids, uses_left, expires_unix, revoked } = grant;
        Self {
            number: number.to_string(),
            secret: secret.to_string(),
            ids: ids.iter().map(ToString::to_string).collect(),
            left: *uses_left,
            until: *expires_unix,
            revoked: *revoked,
        }
    }

    fn grant(&self) -> Option<JoinGrant> {
        Some(JoinGrant {
            number: JoinNumber::parse(&self.number)?,
            secret: SecretHash::parse(&self.secret)?,
            ids: self.ids.iter().map(|id| SpiffeId::parse(id).ok()).collect::<Option<_>>()?,
            uses_left: self.left,
            expires_unix: self.until,
            revoked: self.revoked,
        })
    }
}

/// All that are kept.
#[derive(Debug, Default)]
pub(super) struct Joins(BTreeMap<JoinNumber, JoinGrant>);

impl Joins {
    pub(super) fn add(&mut self, grant: JoinGrant) -> Result<Line, JoinRefusal> {
        if self.0.len() >= MAX_TOKENS || self.0.contains_key(&grant.number) {
            return Err(JoinRefusal::TooMany);
        }
        let line = Line::of(&grant);
        self.0.insert(grant.number, grant);
        Ok(line)
    }

    /// Whether a token is good for some identities now. A caller without the right secret learns nothing about it.
    pub(super) fn check(
        &self,
        number: JoinNumber,
        secret: &SecretHash,
        ids: &[SpiffeId],
        now_unix: i64,
    ) -> Result<&JoinGrant, JoinRefusal> {
        let grant = self.0.get(&number).filter(|grant| grant.secret.matches(secret)).ok_or(JoinRefusal::Unknown)?;
        if grant.revoked {
            return Err(JoinRefusal::Revoked);
        }
        if grant.expires_unix <= now_unix {
            return Err(JoinRefusal::Expired);
        }
        if grant.uses_left == 0 {
            return Err(JoinRefusal::UsedUp);
        }
        match ids.iter().find(|id| !grant.ids.contains(id)) {
            Some(other) => Err(JoinRefusal::Identity(other.clone())),
            None => Ok(grant),
        }
    }

    /// Takes a use, after [`Self::check`]. Returns what is left then.
    pub(super) fn take(&mut self, number: JoinNumber) -> Option<u32> {
        let grant = self.0.get_mut(&number)?;
        grant.uses_left = grant.uses_left.saturating_sub(1);
        Some(grant.uses_left)
    }

    /// Says whether there is such a token.
    pub(super) fn revoke(&mut self, number: JoinNumber) -> bool {
        self.0.get_mut(&number).map(|grant| grant.revoked = true).is_some()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &JoinGrant> {
        self.0.values()
    }

    /// Puts back what was added once; what is known of it already stays.
    pub(super) fn replay_added(&mut self, line: &Line) -> Option<()> {
        let grant = line.grant()?;
        self.0.entry(grant.number).or_insert(grant);
        Some(())
    }

    /// A use of a token that was forgotten since changes nothing.
    pub(super) fn replay_used(&mut self, number: &str, left: u32) -> Option<()> {
        if let Some(grant) = self.0.get_mut(&JoinNumber::parse(number)?) {
            grant.uses_left = grant.uses_left.min(left);
        }
        Some(())
    }

    pub(super) fn replay_revoked(&mut self, number: &str) -> Option<()> {
        self.revoke(JoinNumber::parse(number)?);
        Some(())
    }

    pub(super) fn retain(&mut self, kept: impl Fn(i64) -> bool) {
        self.0.retain(|_, grant| kept(grant.expires_unix));
    }

    pub(super) fn lines(&self) -> Vec<Line> {
        self.0.values().map(Line::of).collect()
    }

    pub(super) fn from_lines(lines: &[Line]) -> Option<Self> {
        let mut joins = Self::default();
        lines.iter().try_for_each(|line| joins.replay_added(line))?;
        Some(joins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::JoinToken;

    const ROOT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
    }

    fn grant(token: &JoinToken, uses_left: u32) -> JoinGrant {
        let (number, secret) = (token.number(), token.secret_hash());
        JoinGrant { number, secret, ids: vec![id("cart"), id("web")], uses_left, expires_unix: 100, revoked: false }
    }

    #[test]
    fn a_token_is_good_for_its_identities_until_it_is_used_up_expired_or_revoked() {
        let (token, mut joins) = (JoinToken::random(ROOT).unwrap(), Joins::default());
        joins.add(grant(&token, 2)).unwrap();
        let (number, hash) = (token.number(), token.secret_hash());
        let check = |joins: &Joins, ids: &[SpiffeId], now| joins.check(number, &hash, ids, now).map(|_| ());
        assert_eq!(check(&joins, &[id("web")], 99), Ok(()));
        assert_eq!(check(&joins, &[id("web"), id("db")], 99), Err(JoinRefusal::Identity(id("db"))));
        assert_eq!(check(&joins, &[], 100), Err(JoinRefusal::Expired));
        assert_eq!((joins.take(number), joins.take(number)), (Some(1), Some(0)));
        assert_eq!(check(&joins, &[], 99), Err(JoinRefusal::UsedUp));
        assert!(joins.revoke(number));
        assert_eq!(check(&joins, &[], 99), Err(JoinRefusal::Revoked));
    }

    #[test]
    fn without_the_secret_nothing_is_said_of_a_token() {
        let (token, other, mut joins) =
            (JoinToken::random(ROOT).unwrap(), JoinToken::random(ROOT).unwrap(), Joins::default());
        joins.add(grant(&token, 0)).unwrap();
        joins.revoke(token.number());
        for (number, secret) in [(token.number(), other.secret_hash()), (other.number(), token.secret_hash())] {
            assert_eq!(joins.check(number, &secret, &[], 1000).map(|_| ()), Err(JoinRefusal::Unknown));
        }
    }

    #[test]
    fn records_that_come_twice_or_late_never_give_a_use_back() {
        let (token, mut joins) = (JoinToken::random(ROOT).unwrap(), Joins::default());
        let line = joins.add(grant(&token, 3)).unwrap();
        let number = token.number().to_string();
        for left in [2, 1, 2] {
            joins.replay_used(&number, left).unwrap();
            joins.replay_added(&line).unwrap();
        }
        joins.replay_revoked(&number).unwrap();
        joins.replay_added(&line).unwrap();
        let back = Joins::from_lines(&joins.lines()).unwrap();
        let known = back.all().next().unwrap();
        assert_eq!((known.uses_left, known.revoked, known.ids.len()), (1, true, 2));
        joins.retain(|until| until > 100);
        assert_eq!(joins.all().count(), 0);
        joins.replay_used(&number, 0).unwrap();
        assert!(joins.replay_used("x", 0).is_none());
    }
}
