//! The answers of two policy sets about one port, as formulas over atoms: conditions with a single value.
//!
//! They can be compared while only some atoms are known. Then it is known as well whether they differ, or an atom is named that
//! it depends on. Rules that both sets have are asked last, and not at all where the others agree.

use std::collections::{BTreeSet, HashMap};

use crate::authorization::{AuthorizationAction, Condition, Rule, Values};
use crate::decide::{Action, decide};
use crate::diff::class::Client;
use crate::mode::Mode;
use crate::resolve::EffectivePolicy;

/// The number of an atom.
pub(super) type Atom = usize;

/// Every atom once.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    all: Vec<Condition>,
    numbers: HashMap<Condition, Atom>,
}

impl Atoms {
    fn number(&mut self, condition: Condition) -> Atom {
        let new = self.all.len();
        let number = *self.numbers.entry(condition.clone()).or_insert(new);
        if number == new {
            self.all.push(condition);
        }
        number
    }

    pub(super) fn get(&self, atom: Atom) -> Option<&Condition> {
        self.all.get(atom)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn has_server_names(&self) -> bool {
        self.all.iter().any(|condition| matches!(condition, Condition::Sni(_)))
    }
}

/// Whether a condition is about who the peer is.
pub(super) const fn is_identity(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::Principal(_) | Condition::TrustDomain(_) | Condition::Namespace(_) | Condition::ServiceAccount(_)
    )
}

/// What is known of a formula.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    Yes,
    No,
    /// It depends on this atom.
    Open(Atom),
}

impl From<bool> for Known {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

impl Known {
    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            open @ Self::Open(_) => open,
        }
    }

    fn any(all: impl IntoIterator<Item = Self>) -> Self {
        let mut found = Self::No;
        for one in all {
            match one {
                Self::Yes => return Self::Yes,
                Self::Open(_) if found == Self::No => found = one,
                _ => {}
            }
        }
        found
    }

    fn all(all: impl IntoIterator<Item = Self>) -> Self {
        Self::any(all.into_iter().map(Self::not)).not()
    }
}

/// A condition over atoms.
#[derive(Debug)]
enum Test {
    Port(Values<u16>),
    Atoms {
        values: Vec<Atom>,
        not_values: Vec<Atom>,
    },
    /// A field of HTTP.
    Never,
}

#[derive(Debug)]
struct RuleFormula {
    from: Vec<Vec<Test>>,
    to: Vec<Vec<Test>>,
    when: Vec<Test>,
}

/// The rules of one action: those of both sets, and those of only one of them.
#[derive(Debug)]
struct Rules {
    shared: Vec<RuleFormula>,
    only: [Vec<RuleFormula>; 2],
}

impl Rules {
    fn new(policies: [&EffectivePolicy; 2], action: AuthorizationAction, atoms: &mut Atoms) -> Self {
        let [old, new] = policies.map(|policy| {
            let rules = policy.authorizer().rules(action).cloned().map(|rule| Rule { line: 0, ..rule });
            rules.collect::<BTreeSet<_>>()
        });
        let mut all =
            |rules: &mut dyn Iterator<Item = &Rule>| rules.map(|rule| RuleFormula::new(rule, atoms)).collect();
        Self {
            only: [all(&mut old.difference(&new)), all(&mut new.difference(&old))],
            shared: all(&mut old.intersection(&new)),
        }
    }
}

/// The answers of two sets about one workload.
#[derive(Debug)]
pub(super) struct Formulas {
    deny: Rules,
    allow: Rules,
    /// Whether an ALLOW policy applies.
    restricts: [bool; 2],
}

/// What is known of the two answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Compared {
    Same,
    Differ,
    /// It depends on this atom.
    Open(Atom),
}

/// What formulas are asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// Of the old and of the new set.
    pub(super) modes: [Mode; 2],
    pub(super) port: u16,
    pub(super) client: Client,
}

/// What the proxy sees of a client that it authorizes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum View {
    /// Its identity.
    Identified,
    /// Its first bytes, and no identity.
    Anonymous,
    /// Nothing, under DISABLE.
    Uninspected,
}

impl Case {
    /// `None` if the mode refuses the client.
    fn view(&self, mode: Mode) -> Option<View> {
        if mode == Mode::Disable {
            return Some(View::Uninspected);
        }
        match decide(mode, self.client.opening()) {
            Action::Terminate if self.client == Client::Mtls => Some(View::Identified),
            Action::Terminate | Action::Refuse(_) => None,
            Action::PassThrough(_) => Some(View::Anonymous),
        }
    }
}

impl Formulas {
    pub(super) fn new(policies: [&EffectivePolicy; 2], atoms: &mut Atoms) -> Self {
        Self {
            deny: Rules::new(policies, AuthorizationAction::Deny, atoms),
            allow: Rules::new(policies, AuthorizationAction::Allow, atoms),
            restricts: policies.map(|policy| policy.authorizer().restricts()),
        }
    }

    /// Whether the answers differ. `known` says of an atom, for a client as it is seen, whether it is true.
    pub(super) fn compare(&self, case: &Case, known: impl Fn(Atom, View) -> Option<bool>) -> Compared {
        let [old, new] = case.modes.map(|mode| case.view(mode));
        let any = |rules: &[RuleFormula], view: View| {
            Known::any(rules.iter().map(|rule| rule.matches(case.port, &|atom| known(atom, view))))
        };
        if let (Some(old), Some(new)) = (old, new)
            && old == new
        {
            // Rules of both sets matter only where those of one set say different things.
            let [old_deny, new_deny] = self.deny.only.each_ref().map(|rules| any(rules, old));
            let allow = |rules, restricts| if restricts { any(rules, old) } else { Known::Yes };
            let [old_only, new_only] = &self.allow.only;
            let [old_restricts, new_restricts] = self.restricts;
            let (old_allow, new_allow) = (allow(old_only, old_restricts), allow(new_only, new_restricts));
            match (old_deny, new_deny, old_allow, new_allow) {
                (Known::Yes, Known::Yes, ..) => return Compared::Same,
                (Known::Open(atom), ..) | (_, Known::Open(atom), ..) => return Compared::Open(atom),
                (_, _, Known::Open(atom), _) | (.., Known::Open(atom)) => return Compared::Open(atom),
                _ if old_deny == new_deny && old_allow == new_allow => return Compared::Same,
                _ => {}
            }
        }
        let answer = |view: Option<View>, deny: &[RuleFormula], allow: &[RuleFormula], restricts: bool| {
            let Some(view) = view else { return Known::No };
            let either = |only, shared| Known::any([any(only, view), any(shared, view)]);
            let allowed = if restricts { either(allow, &self.allow.shared) } else { Known::Yes };
            Known::all([either(deny, &self.deny.shared).not(), allowed])
        };
        let ([old_deny, new_deny], [old_allow, new_allow]) = (&self.deny.only, &self.allow.only);
        let [old_restricts, new_restricts] = self.restricts;
        match (answer(old, old_deny, old_allow, old_restricts), answer(new, new_deny, new_allow, new_restricts)) {
            (Known::Open(atom), _) | (_, Known::Open(atom)) => Compared::Open(atom),
            (old, new) if old == new => Compared::Same,
            _ => Compared::Differ,
        }
    }
}

impl RuleFormula {
    fn new(rule: &Rule, atoms: &mut Atoms) -> Self {
        let mut all = |list: &[Condition]| list.iter().map(|condition| Test::new(condition, atoms)).collect::<Vec<_>>();
        Self {
            from: rule.from.iter().map(|list| all(list)).collect(),
            to: rule.to.iter().map(|list| all(list)).collect(),
            when: all(&rule.when),
        }
    }

    fn matches(&self, port: u16, known: &impl Fn(Atom) -> Option<bool>) -> Known {
        let all = |tests: &[Test]| Known::all(tests.iter().map(|test| test.holds(port, known)));
        let any = |lists: &[Vec<Test>]| {
            if lists.is_empty() { Known::Yes } else { Known::any(lists.iter().map(|list| all(list))) }
        };
        // Ports are known, and refute most rules.
        Known::all([any(&self.to), all(&self.when), any(&self.from)])
    }
}

impl Test {
    fn new(condition: &Condition, atoms: &mut Atoms) -> Self {
        macro_rules! split {
            ($kind:path, $values:expr) => {{
                let mut one = |value| atoms.number($kind(Values::new(vec![value], Vec::new())));
                Self::Atoms {
                    values: $values.values().iter().cloned().map(&mut one).collect(),
                    not_values: $values.not_values().iter().cloned().map(&mut one).collect(),
                }
            }};
        }
        match condition {
            Condition::Port(values) => Self::Port(values.clone()),
            Condition::Principal(values) => split!(Condition::Principal, values),
            Condition::TrustDomain(values) => split!(Condition::TrustDomain, values),
            Condition::Namespace(values) => split!(Condition::Namespace, values),
            Condition::ServiceAccount(values) => split!(Condition::ServiceAccount, values),
            Condition::SourceIp(values) => split!(Condition::SourceIp, values),
            Condition::RemoteIp(values) => split!(Condition::RemoteIp, values),
            Condition::DestinationIp(values) => split!(Condition::DestinationIp, values),
            Condition::Sni(values) => split!(Condition::Sni, values),
            Condition::Http(_) => Self::Never,
        }
    }

    fn holds(&self, port: u16, known: &impl Fn(Atom) -> Option<bool>) -> Known {
        match self {
            Self::Never => Known::No,
            Self::Port(values) => {
                let positive = values.values().is_empty() || values.values().contains(&port);
                Known::from(positive && !values.not_values().contains(&port))
            }
            Self::Atoms { values, not_values } => {
                let of = |atom: &Atom| known(*atom).map_or(Known::Open(*atom), Known::from);
                let positive = if values.is_empty() { Known::Yes } else { Known::any(values.iter().map(of)) };
                Known::all([positive, Known::any(not_values.iter().map(of)).not()])
            }
        }
    }
}
