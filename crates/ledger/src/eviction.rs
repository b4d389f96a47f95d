//! Which observations are kept when there are too many.
//!
//! Three classes ([`Class`]) are each guaranteed a share of the table, and may use what the others leave. When the table is full, the
//! class that has more than its share loses its least recently seen entry, new clients first. So a flood of new clients takes nothing
//! from peers with an identity, and from known clients only what they had borrowed.
//!
//! Within these, one source (an identity, an IPv4 address, an IPv6 /64) may have [`MAX_PER_SOURCE`] observations: one that scans
//! ports, or uses ever new addresses of its network, replaces its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::entry::{Class, Entry};
use crate::key::PeerSource;

/// Observations of one source.
pub(crate) const MAX_PER_SOURCE: usize = 128;
/// How many candidates for eviction one scan of the whole table finds in each class.
const CANDIDATES: usize = 128;

/// All entries by source and class, to choose which to evict.
#[derive(Default)]
pub(crate) struct EvictionIndex {
    sources: HashMap<PeerSource, Vec<Arc<Entry>>>,
    /// How many there are of each class. A new client that became known since the last scan still counts as new.
    sizes: [usize; 3],
    /// The least recently seen of each class at the last scan, the oldest last, with when it had been seen.
    candidates: [Vec<(i64, Arc<Entry>)>; 3],
}

impl EvictionIndex {
    pub(crate) fn count(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// Adds one; what it replaces is to be removed from the table.
    pub(crate) fn add(&mut self, entry: &Arc<Entry>, max: usize) -> Vec<Arc<Entry>> {
        let mut evicted = Vec::new();
        let source = entry.key.source();
        let of_source = self.sources.get(&source).map_or(&[][..], Vec::as_slice);
        if of_source.len() >= max_per_source(max)
            && let Some(oldest) = of_source.iter().min_by_key(|entry| entry.last_seen()).cloned()
        {
            self.remove(&oldest);
            evicted.push(oldest);
        }
        while self.count() >= max {
            let Some(oldest) = self.choose(entry.class(), max) else { break };
            self.remove(&oldest);
            evicted.push(oldest);
        }
        entry.is_listed.store(true, Ordering::Relaxed);
        self.grow(entry.class(), 1);
        self.sources.entry(source).or_default().push(Arc::clone(entry));
        evicted
    }

    fn remove(&mut self, entry: &Arc<Entry>) {
        entry.is_listed.store(false, Ordering::Relaxed);
        let source = entry.key.source();
        if let Some(entries) = self.sources.get_mut(&source) {
            entries.retain(|other| !Arc::ptr_eq(other, entry));
            if entries.is_empty() {
                self.sources.remove(&source);
            }
        }
        self.grow(entry.class(), -1);
    }

    fn grow(&mut self, class: Class, by: isize) {
        // Since the last scan one may have become known. The sum must stay right.
        let order = [class as usize, 0, 1, 2];
        for index in order {
            if let Some(size) = self.sizes.get_mut(index)
                && let Some(now) = size.checked_add_signed(by)
            {
                *size = now;
                return;
            }
        }
    }

    /// The entry to evict for a newcomer.
    fn choose(&mut self, newcomer: Class, max: usize) -> Option<Arc<Entry>> {
        if let Some(found) = self.next_candidate(newcomer, max) {
            return Some(found);
        }
        self.rescan();
        self.next_candidate(newcomer, max)
    }

    fn next_candidate(&mut self, newcomer: Class, max: usize) -> Option<Arc<Entry>> {
        let is_over_share = |class: &Class| {
            let size = self.sizes.get(*class as usize).copied().unwrap_or_default();
            size > share(*class, max) || (*class == newcomer && size >= share(*class, max))
        };
        let class = Class::ALL.into_iter().find(is_over_share)?;
        let candidates = self.candidates.get_mut(class as usize)?;
        while let Some((seen, entry)) = candidates.pop() {
            // Whatever was seen since is more recent than all that were not candidates.
            if entry.is_listed.load(Ordering::Relaxed) && entry.last_seen() == seen && entry.class() == class {
                return Some(entry);
            }
        }
        None
    }

    /// Counts the classes anew, and finds the next candidates of each.
    fn rescan(&mut self) {
        let mut classes: [Vec<(i64, Arc<Entry>)>; 3] = Default::default();
        for entry in self.sources.values().flatten() {
            if let Some(class) = classes.get_mut(entry.class() as usize) {
                class.push((entry.last_seen(), Arc::clone(entry)));
            }
        }
        for (index, mut class) in classes.into_iter().enumerate() {
            if let Some(size) = self.sizes.get_mut(index) {
                *size = class.len();
            }
            if class.len() > CANDIDATES {
                class.select_nth_unstable_by_key(CANDIDATES, |(seen, _)| *seen);
                class.truncate(CANDIDATES);
            }
            class.sort_unstable_by_key(|(seen, _)| std::cmp::Reverse(*seen));
            if let Some(candidates) = self.candidates.get_mut(index) {
                *candidates = class;
            }
        }
    }
}

/// What a class is guaranteed.
const fn share(class: Class, max: usize) -> usize {
    match class {
        Class::New | Class::Known => max / 4,
        Class::Verified => max - 2 * (max / 4),
    }
}

/// For tables that are smaller than one source may fill.
fn max_per_source(max: usize) -> usize {
    MAX_PER_SOURCE.min(max.div_ceil(4))
}
