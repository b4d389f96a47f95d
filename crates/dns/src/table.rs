//! What is known about the names, as connections read it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// One state of all names. Names are compared without regard to the case of ASCII letters; with and without a trailing dot they
/// differ, since the dot keeps them from the search domains.
#[derive(Debug, Default)]
pub struct Table {
    by_name: HashMap<Arc<str>, Known>,
    by_address: HashMap<IpAddr, Owners>,
}

/// The names of one address.
#[derive(Debug, Default)]
struct Owners {
    /// Those whose last answer contains it.
    latest: Vec<Arc<str>>,
    /// Those that had it a moment ago. They count only if nobody has it now: an address that moved belongs to its new name.
    remembered: Vec<Arc<str>>,
}

/// What is known about one name.
#[derive(Debug)]
pub(crate) struct Known {
    /// The addresses of the last answer.
    pub(crate) latest: Arc<[IpAddr]>,
    /// No lookup has succeeded yet, or the last one failed.
    pub(crate) failed: bool,
}

impl Table {
    /// Adds a name in lower case, with every address that it has or had a moment ago.
    pub(crate) fn insert(&mut self, name: &Arc<str>, known: Known, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            let owners = self.by_address.entry(address).or_default();
            let names = if known.latest.contains(&address) { &mut owners.latest } else { &mut owners.remembered };
            names.push(Arc::clone(name));
        }
        self.by_name.insert(Arc::clone(name), known);
    }

    /// Same order for the same names, however they came.
    pub(crate) fn sort(&mut self) {
        for owners in self.by_address.values_mut() {
            owners.latest.sort_unstable();
            owners.remembered.sort_unstable();
        }
    }

    /// The addresses of the last answer about this name, sorted. Empty if there was none, or there is no such name.
    #[must_use]
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        self.known(name).map_or(&[], |known| &known.latest)
    }

    /// The names, in lower case and sorted, whose last answer contains the address. If there is none, those with an earlier
    /// answer of the last 90 s that did: some servers return a subset each time. A lookup that failed is no answer.
    #[must_use]
    pub fn names_of(&self, address: IpAddr) -> &[Arc<str>] {
        self.by_address
            .get(&address.to_canonical())
            .map_or(&[], |owners| if owners.latest.is_empty() { &owners.remembered } else { &owners.latest })
    }

    /// Whether the name may have addresses that are not known: no lookup has succeeded yet, the last one failed or was
    /// incomplete, or the name is not watched. "No such name" is not a failure.
    #[must_use]
    pub fn is_failed(&self, name: &str) -> bool {
        self.known(name).is_none_or(|known| known.failed)
    }

    /// Whether the name is watched.
    #[must_use]
    pub fn is_known(&self, name: &str) -> bool {
        self.known(name).is_some()
    }

    /// How many names are failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.by_name.values().filter(|known| known.failed).count()
    }

    fn known(&self, name: &str) -> Option<&Known> {
        self.by_name.get(&*lower_case(name))
    }
}

/// The form in which names are compared. Allocates only if it must.
pub(crate) fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}
