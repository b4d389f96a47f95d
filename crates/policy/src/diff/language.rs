//! The shortest text that some patterns match and others do not.
//!
//! Patterns become one nondeterministic automaton each, which is made deterministic as far as the search comes: breadth first
//! over the product of the grammar (what a SPIFFE ID or a server name may be), every pattern that must match, and all that must
//! not. Of the characters that no pattern has, one stands for all of them.

use std::collections::{BTreeSet, HashMap, HashSet};

/// What characters a loop takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Span {
    Any,
    /// Within a segment.
    NoSlash,
}

/// A step of a pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Char(u8),
    /// Any number of characters.
    Star(Span),
}

/// Alternatives, each a list of steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Pattern(Vec<Vec<Step>>);

impl Pattern {
    /// Adds an alternative.
    pub(super) fn or(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.0.push(steps.into_iter().collect());
        self
    }
}

/// The characters of a text, as steps.
pub(super) fn text(text: &str) -> impl Iterator<Item = Step> + '_ {
    text.bytes().map(Step::Char)
}

/// What texts there are.
pub(super) struct Grammar {
    /// What every text begins with.
    pub(super) start: &'static str,
    /// The state behind it.
    pub(super) initial: u8,
    /// The state after a character, if it may stand there.
    pub(super) step: fn(u8, u8) -> Option<u8>,
    /// Whether a text may end there.
    pub(super) accepts: fn(u8) -> bool,
    /// All characters by kind, in the order of preference: of each kind one that no pattern has is tried.
    pub(super) kinds: &'static [&'static str],
    /// Characters that are not like others of their kind.
    pub(super) special: &'static str,
    /// The longest text, in bytes.
    pub(super) longest: usize,
}

impl Grammar {
    /// The shortest text that each pattern of `matching` matches and none of `others`; of several, the first in the order of
    /// the alphabet.
    pub(super) fn shortest(&self, matching: &[&Pattern], others: &[&Pattern]) -> Option<String> {
        let mut machines: Vec<Machine> = matching.iter().map(|pattern| Machine::new(&pattern.0)).collect();
        machines.push(Machine::new(others.iter().flat_map(|pattern| &pattern.0)));
        let alphabet = self.alphabet(&machines);
        let last = machines.len().saturating_sub(1);
        let mut initial: Vec<u32> = machines.iter().map(|_| INITIAL).collect();
        for byte in self.start.bytes() {
            initial.iter_mut().zip(&mut machines).for_each(|(state, machine)| *state = machine.step(*state, byte));
        }
        let mut search = Search { found: Vec::new(), seen: HashSet::new() };
        search.add(Node { grammar: self.initial, machines: initial, length: 0, came: None });
        let mut next = 0;
        while let Some(node) = search.found.get(next).cloned() {
            let is_last = |at: usize| at == last;
            let accepted = node
                .machines
                .iter()
                .zip(&machines)
                .enumerate()
                .all(|(at, (state, machine))| machine.accepts(*state) != is_last(at));
            if accepted && (self.accepts)(node.grammar) {
                return search.text(self.start, next);
            }
            for byte in &alphabet {
                let Some(grammar) = (self.step)(node.grammar, *byte).filter(|_| node.length < self.longest) else {
                    continue;
                };
                let states =
                    node.machines.iter().zip(&mut machines).map(|(state, machine)| machine.step(*state, *byte));
                let states: Vec<u32> = states.collect();
                let is_lost =
                    states.iter().zip(&machines).enumerate().any(|(at, (state, machine))| {
                        if is_last(at) { machine.is_won(*state) } else { *state == DEAD }
                    });
                if !is_lost {
                    search.add(Node {
                        grammar,
                        machines: states,
                        length: node.length.saturating_add(1),
                        came: Some((next, *byte)),
                    });
                }
            }
            next = next.saturating_add(1);
        }
        None
    }

    /// What patterns name, what is special, and one of each kind that they do not name.
    fn alphabet(&self, machines: &[Machine]) -> Vec<u8> {
        let named: BTreeSet<u8> = machines.iter().flat_map(Machine::characters).collect();
        let unnamed = self.kinds.iter().filter_map(|kind| kind.bytes().find(|byte| !named.contains(byte)));
        let known = |byte: &u8| self.kinds.iter().any(|kind| kind.as_bytes().contains(byte));
        let mut alphabet: BTreeSet<u8> = named.iter().copied().filter(known).collect();
        alphabet.extend(unnamed.chain(self.special.bytes()));
        let rank = |byte: &u8| self.kinds.iter().flat_map(|kind| kind.bytes()).position(|other| other == *byte);
        let mut ordered: Vec<u8> = alphabet.into_iter().collect();
        ordered.sort_by_key(rank);
        ordered
    }
}

#[derive(Clone)]
struct Node {
    grammar: u8,
    machines: Vec<u32>,
    length: usize,
    /// The node before it, and the character between them.
    came: Option<(usize, u8)>,
}

struct Search {
    /// In the order of their length.
    found: Vec<Node>,
    seen: HashSet<(u8, Vec<u32>)>,
}

impl Search {
    fn add(&mut self, node: Node) {
        if self.seen.insert((node.grammar, node.machines.clone())) {
            self.found.push(node);
        }
    }

    fn text(&self, start: &str, mut at: usize) -> Option<String> {
        let mut bytes = Vec::new();
        while let Some((before, byte)) = self.found.get(at)?.came {
            bytes.push(byte);
            at = before;
        }
        bytes.reverse();
        String::from_utf8(bytes).ok().map(|text| format!("{start}{text}"))
    }
}

/// The state in which no alternative can match any more.
const DEAD: u32 = 0;
/// The state before the first character.
const INITIAL: u32 = 1;

/// The beginning that some alternatives share.
#[derive(Debug, Default)]
struct Place {
    /// It stays here for these characters.
    span: Option<Span>,
    /// An alternative ends here.
    is_end: bool,
    next: Vec<(Step, u32)>,
}

/// Alternatives as a tree of what they begin with, so that many cost no more than one; made deterministic as far as it is asked.
struct Machine {
    places: Vec<Place>,
    /// The places that each state stands for.
    states: Vec<Vec<u32>>,
    numbers: HashMap<Vec<u32>, u32>,
    next: HashMap<(u32, u8), u32>,
}

impl Machine {
    fn new<'s>(alternatives: impl IntoIterator<Item = &'s Vec<Step>>) -> Self {
        let mut machine =
            Self { places: vec![Place::default()], states: Vec::new(), numbers: HashMap::new(), next: HashMap::new() };
        for steps in alternatives {
            machine.insert(steps);
        }
        machine.number(Vec::new());
        let mut initial = Vec::new();
        machine.enter(0, &mut initial);
        machine.number(normal(initial));
        machine
    }

    fn insert(&mut self, steps: &[Step]) {
        let mut at = 0;
        for step in steps {
            let known = self.place(at).and_then(|place| place.next.iter().find(|(known, _)| known == step));
            at = match known {
                Some((_, next)) => *next,
                None => {
                    let new = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
                    let span = if let Step::Star(span) = step { Some(*span) } else { None };
                    self.places.push(Place { span, ..Place::default() });
                    if let Some(place) = self.place_mut(at) {
                        place.next.push((*step, new));
                    }
                    new
                }
            };
        }
        if let Some(place) = self.place_mut(at) {
            place.is_end = true;
        }
    }

    fn place(&self, at: u32) -> Option<&Place> {
        self.places.get(usize::try_from(at).ok()?)
    }

    fn place_mut(&mut self, at: u32) -> Option<&mut Place> {
        self.places.get_mut(usize::try_from(at).ok()?)
    }

    /// A loop begins without a character.
    fn enter(&self, at: u32, into: &mut Vec<u32>) {
        into.push(at);
        let loops = self.place(at).into_iter().flat_map(|place| &place.next);
        for (_, next) in loops.filter(|(step, _)| matches!(step, Step::Star(_))) {
            self.enter(*next, into);
        }
    }

    fn places(&self, state: u32) -> impl Iterator<Item = (u32, &Place)> {
        let places = usize::try_from(state).ok().and_then(|state| self.states.get(state)).into_iter().flatten();
        places.filter_map(|at| Some((*at, self.place(*at)?)))
    }

    fn step(&mut self, state: u32, byte: u8) -> u32 {
        if let Some(known) = self.next.get(&(state, byte)) {
            return *known;
        }
        let mut after = Vec::new();
        for (at, place) in self.places(state) {
            if place.span == Some(Span::Any) || place.span.is_some() && byte != b'/' {
                self.enter(at, &mut after);
            }
            if let Some((_, next)) = place.next.iter().find(|(step, _)| *step == Step::Char(byte)) {
                self.enter(*next, &mut after);
            }
        }
        let number = self.number(normal(after));
        self.next.insert((state, byte), number);
        number
    }

    fn number(&mut self, places: Vec<u32>) -> u32 {
        let new = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(places.clone()).or_insert(new);
        if number == new {
            self.states.push(places);
        }
        number
    }

    fn accepts(&self, state: u32) -> bool {
        self.places(state).any(|(_, place)| place.is_end)
    }

    /// Whether it matches whatever comes.
    fn is_won(&self, state: u32) -> bool {
        self.places(state).any(|(_, place)| place.is_end && place.span == Some(Span::Any))
    }

    fn characters(&self) -> impl Iterator<Item = u8> + '_ {
        let steps = self.places.iter().flat_map(|place| &place.next);
        steps.filter_map(|(step, _)| if let Step::Char(byte) = step { Some(*byte) } else { None })
    }
}

fn normal(mut places: Vec<u32>) -> Vec<u32> {
    places.sort_unstable();
    places.dedup();
    places
}
