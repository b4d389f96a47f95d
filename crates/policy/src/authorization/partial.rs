//! Decides where not every fact of a connection is known, as about connections of the past.
//!
//! A condition about an unknown fact is neither true nor false. An answer that is given holds whatever the unknown facts are;
//! where they matter there is none.

use crate::authorization::authorizer::{Authorization, Authorizer, MatchedRule};
use crate::authorization::facts::Facts;
use crate::authorization::rule::{Condition, Rule};

/// Which facts of a connection are known. Port and identity always are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KnownFacts {
    /// [`Facts::source`]
    pub source: bool,
    /// [`Facts::remote`]
    pub remote: bool,
    /// [`Facts::destination`]
    pub destination: bool,
    /// [`Facts::sni`]
    pub sni: bool,
}

/// A rule that compares a fact that is not known, and on which the answer depends.
#[derive(Clone, Copy, Debug)]
pub struct OpenRule<'p> {
    /// The rule.
    pub rule: MatchedRule<'p>,
    /// What it compares, as a key of `when`.
    pub key: &'static str,
}

impl Authorizer {
    /// Decides, if what is known suffices.
    ///
    /// # Errors
    /// If it does not: the first rule on which the answer depends.
    pub fn authorize_known(&self, facts: &Facts<'_>, known: KnownFacts) -> Result<Authorization<'_>, OpenRule<'_>> {
        let deny = first(self.denying(), facts, known);
        if let Some(Match::Holds(rule)) = deny {
            return Ok(Authorization::Denied(rule));
        }
        let allow = if self.allow_policies().is_empty() {
            Ok(Authorization::Unrestricted)
        } else {
            match first(self.allowing(), facts, known) {
                Some(Match::Holds(rule)) => Ok(Authorization::Allowed(rule)),
                Some(Match::Open(open)) => Err(open),
                // Whatever the DENY rules say, it is refused.
                None => return Ok(Authorization::NotAllowed(self.allow_policies())),
            }
        };
        match deny {
            Some(Match::Open(open)) => Err(open),
            _ => allow,
        }
    }
}

enum Match<'p> {
    Holds(MatchedRule<'p>),
    Open(OpenRule<'p>),
}

/// The first rule that matches; else the first that might.
fn first<'p>(
    rules: impl Iterator<Item = (MatchedRule<'p>, &'p Rule)>,
    facts: &Facts<'_>,
    known: KnownFacts,
) -> Option<Match<'p>> {
    let mut open = None;
    for (matched, rule) in rules {
        match matches(rule, facts, known) {
            Some(true) => return Some(Match::Holds(matched)),
            Some(false) => {}
            None => {
                let key = rule.conditions().find_map(|condition| unknown(condition, known)).unwrap_or_default();
                open.get_or_insert(OpenRule { rule: matched, key });
            }
        }
    }
    open.map(Match::Open)
}

/// `None` if it depends on what is not known.
fn matches(rule: &Rule, facts: &Facts<'_>, known: KnownFacts) -> Option<bool> {
    let all = |conditions: &[Condition]| {
        let holds = |condition: &Condition| unknown(condition, known).is_none().then(|| condition.holds(facts));
        every(conditions.iter().map(holds))
    };
    let any = |lists: &[Vec<Condition>]| {
        if lists.is_empty() {
            return Some(true);
        }
        // One of them holds, unless none of them does.
        every(lists.iter().map(|list| all(list).map(|holds| !holds))).map(|none| !none)
    };
    every([any(&rule.from), any(&rule.to), all(&rule.when)].into_iter())
}

/// Kleene's conjunction.
fn every(of: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(true);
    for holds in of {
        match holds {
            Some(false) => return Some(false),
            Some(true) => {}
            None => result = None,
        }
    }
    result
}

/// What a condition compares, if it is not known.
const fn unknown(condition: &Condition, known: KnownFacts) -> Option<&'static str> {
    match condition {
        Condition::SourceIp(_) if !known.source => Some("source.ip"),
        Condition::RemoteIp(_) if !known.remote => Some("remote.ip"),
        Condition::DestinationIp(_) if !known.destination => Some("destination.ip"),
        Condition::Sni(_) if !known.sni => Some("connection.sni"),
        _ => None,
    }
}
