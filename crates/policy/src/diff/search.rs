//! Finds every class of connections to one port whose answer changes.
//!
//! A class is a conjunction of atoms, each true or false. From the class of all connections of one client, an atom that one of
//! the two answers still depends on splits it in two; a part without any connection is dropped; when both answers are known,
//! the class is a leaf. So a pattern that makes no difference in some context is never asked there, and classes are as large as
//! the answers let them be. Each class carries a connection that belongs to it.

use std::net::{IpAddr, Ipv4Addr};

use portcullis_identity::SpiffeId;

use crate::authorization::{Condition, Facts, StringMatch};
use crate::diff::class::{Client, Connection};
use crate::diff::formula::{Atom, Atoms, Case, Compared, Formulas, View, is_identity};
use crate::diff::{names, ranges};
use crate::mode::Mode;

/// Addresses for documentation: no range of a policy is likely to name them.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const DESTINATION: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// Where to search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port<'s> {
    pub(super) atoms: &'s Atoms,
    pub(super) formulas: &'s Formulas,
    /// Of the old and of the new set.
    pub(super) modes: [Mode; 2],
    pub(super) port: u16,
}

/// A class whose answer changes.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) literals: Vec<(Condition, bool)>,
    pub(super) witness: Connection,
}

#[derive(Clone, Debug)]
struct Class {
    /// What divides it from others.
    literals: Vec<(Atom, bool)>,
    /// What is known of each atom: the literals, and what follows from them.
    known: Vec<Option<bool>>,
    /// The ID is known, from an exact principal.
    is_exact: bool,
    witness: Connection,
}

/// More classes than were to be looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct OutOfBudget;

impl Port<'_> {
    /// Every class of a client that changes. Each split costs one of `budget`.
    pub(super) fn changes(&self, client: Client, budget: &mut usize) -> Result<Vec<Found>, OutOfBudget> {
        let mut found = Vec::new();
        let Some(everybody) = self.everybody(client) else { return Ok(found) };
        let mut open = vec![everybody];
        while let Some(class) = open.pop() {
            let case = Case { modes: self.modes, port: self.port, client };
            match self.formulas.compare(&case, |atom, view| self.known(&class, atom, view)) {
                Compared::Same => {}
                Compared::Differ => found.push(self.describe(class)),
                Compared::Open(atom) => {
                    *budget = budget.checked_sub(1).ok_or(OutOfBudget)?;
                    // The last one is looked at first: what matches comes before what does not.
                    let parts = [false, true].map(|holds| self.part(&class, atom, holds));
                    open.extend(match parts {
                        [Some(no), Some(yes)] => vec![no.divided_by(atom, false), yes.divided_by(atom, true)],
                        // What is true of all does not divide.
                        [no, yes] => no.or(yes).into_iter().collect(),
                    });
                }
            }
        }
        Ok(found)
    }

    fn everybody(&self, client: Client) -> Option<Class> {
        let peer = if client == Client::Mtls { Some(names::shortest_id(&[])?) } else { None };
        let witness = Connection {
            client,
            peer,
            source: SOURCE,
            remote: SOURCE,
            destination: DESTINATION,
            port: self.port,
            sni: None,
        };
        Some(Class { literals: Vec::new(), known: vec![None; self.atoms.len()], is_exact: false, witness })
    }

    fn known(&self, class: &Class, atom: Atom, view: View) -> Option<bool> {
        let condition = self.atoms.get(atom)?;
        let is_unseen = match condition {
            Condition::Sni(_) => view == View::Uninspected,
            _ => is_identity(condition) && (view != View::Identified || class.witness.peer.is_none()),
        };
        if is_unseen {
            return Some(false);
        }
        let is_settled = match condition {
            Condition::Sni(_) => class.witness.client == Client::Plaintext,
            _ => class.is_exact && is_identity(condition),
        };
        if is_settled {
            return Some(condition.holds(&class.witness.facts()));
        }
        class.known.get(atom).copied().flatten()
    }

    /// The part of a class in which an atom is true, or false. `None` if it is empty.
    fn part(&self, class: &Class, atom: Atom, holds: bool) -> Option<Class> {
        let condition = self.atoms.get(atom)?;
        let mut witness = class.witness.clone();
        if condition.holds(&witness.facts()) != holds {
            let mut literals = self.literals_about(class, condition);
            literals.push((condition, holds));
            // Most patterns exclude each other, which is found fast without those that do not match.
            let matching: Vec<_> = literals.iter().copied().filter(|(_, holds)| *holds).collect();
            if holds && matching.len() < literals.len() {
                set_witness(&mut witness, condition, &matching)?;
            }
            set_witness(&mut witness, condition, &literals)?;
        }
        let mut part = Class { witness, ..class.clone() };
        if let Some(known) = part.known.get_mut(atom) {
            *known = Some(holds);
        }
        part.is_exact |= holds && is_exact_principal(condition);
        Some(part)
    }

    fn literals_about<'c>(&'c self, class: &Class, about: &Condition) -> Vec<(&'c Condition, bool)> {
        let is_same = |condition: &Condition| {
            std::mem::discriminant(condition) == std::mem::discriminant(about)
                || is_identity(condition) && is_identity(about)
        };
        let all = class.literals.iter().filter_map(|(atom, holds)| Some((self.atoms.get(*atom)?, *holds)));
        all.filter(|(condition, _)| is_same(condition)).collect()
    }

    /// With the shortest ID, and without what follows from the rest.
    fn describe(&self, mut class: Class) -> Found {
        let is_about_identity = |(atom, _): &&(Atom, bool)| self.atoms.get(*atom).is_some_and(is_identity);
        if class.witness.peer.is_some()
            && let Some(condition) = class.literals.iter().find(is_about_identity).and_then(|it| self.atoms.get(it.0))
        {
            let literals = self.literals_about(&class, condition);
            let _unchanged_if_none = set_witness(&mut class.witness, condition, &literals);
        }
        self.drop_implied(&mut class);
        let literals = class.literals.iter().filter_map(|(atom, holds)| Some((self.atoms.get(*atom)?.clone(), *holds)));
        Found { literals: literals.collect(), witness: class.witness }
    }

    /// Long lists are left as they are: each literal costs a search.
    fn drop_implied(&self, class: &mut Class) {
        const MOST: usize = 40;
        if class.literals.len() > MOST {
            return;
        }
        for (atom, holds) in class.literals.clone() {
            let Some(condition) = self.atoms.get(atom) else { continue };
            let mut literals = self.literals_about(class, condition);
            literals.retain(|(known, _)| *known != condition);
            literals.push((condition, !holds));
            if set_witness(&mut class.witness.clone(), condition, &literals).is_none() {
                class.literals.retain(|(known, _)| *known != atom);
            }
        }
    }
}

impl Class {
    fn divided_by(mut self, atom: Atom, holds: bool) -> Self {
        self.literals.push((atom, holds));
        self
    }
}

/// Sets the fact that a condition is about, so that all literals about it are met.
fn set_witness(witness: &mut Connection, about: &Condition, literals: &[(&Condition, bool)]) -> Option<()> {
    match about {
        Condition::SourceIp(_) => witness.source = ranges::address(SOURCE, literals)?,
        Condition::RemoteIp(_) => witness.remote = ranges::address(witness.source, literals)?,
        Condition::DestinationIp(_) => witness.destination = ranges::address(DESTINATION, literals)?,
        Condition::Sni(_) => {
            // Without a name every pattern fails.
            let is_named = literals.iter().any(|(_, holds)| *holds);
            witness.sni = if is_named { Some(names::shortest_server_name(literals)?) } else { None };
        }
        _ => witness.peer = Some(names::shortest_id(literals)?),
    }
    Some(())
}

fn is_exact_principal(condition: &Condition) -> bool {
    matches!(condition, Condition::Principal(values) if matches!(values.values(), [StringMatch::Exact(_)]))
}

impl Connection {
    /// What rules are compared with.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            peer: self.peer.as_ref().filter(|_: &&SpiffeId| self.client == Client::Mtls),
            source: self.source,
            remote: self.remote,
            destination: self.destination,
            port: self.port,
            sni: self.sni.as_deref(),
        }
    }
}
