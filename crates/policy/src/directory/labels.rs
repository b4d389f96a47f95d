//! Things by their labels, so that a selector need not be compared with all of them.

use std::collections::{BTreeMap, HashMap};

type Labels = BTreeMap<String, String>;

/// Things of a namespace that have labels.
pub(super) struct LabelIndex<'w, T> {
    all: HashMap<&'w str, Vec<Labelled<'w, T>>>,
    by_label: HashMap<(&'w str, &'w str, &'w str), Vec<Labelled<'w, T>>>,
}

type Labelled<'w, T> = (&'w Labels, T);

impl<T> Default for LabelIndex<'_, T> {
    fn default() -> Self {
        Self { all: HashMap::new(), by_label: HashMap::new() }
    }
}

impl<'w, T: Copy> LabelIndex<'w, T> {
    /// Adds one.
    pub(super) fn add(&mut self, namespace: &'w str, labels: &'w Labels, item: T) {
        self.all.entry(namespace).or_default().push((labels, item));
        for (key, value) in labels {
            self.by_label.entry((namespace, key, value)).or_default().push((labels, item));
        }
    }

    /// Those of a namespace that have all labels of the selector. Looks at those that have its rarest one.
    pub(super) fn select(&self, namespace: &str, selector: &Labels) -> Vec<T> {
        let lists = selector.iter().map(|(key, value)| self.by_label.get(&(namespace, key.as_str(), value.as_str())));
        // One label that nothing has is enough for an empty answer.
        let Some(lists) = lists.collect::<Option<Vec<_>>>() else { return Vec::new() };
        let shortest = lists.into_iter().min_by_key(|list| list.len()).or_else(|| self.all.get(namespace));
        let has = |labels: &Labels| selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        shortest.into_iter().flatten().filter(|(labels, _)| has(labels)).map(|(_, item)| *item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_selector_finds_what_has_all_its_labels() {
        let (one, two, none) = (labels("app=cart v=1"), labels("app=cart v=2"), labels(""));
        let mut index = LabelIndex::default();
        for (namespace, labels, item) in [("shop", &one, 1), ("shop", &two, 2), ("shop", &none, 3), ("other", &one, 4)]
        {
            index.add(namespace, labels, item);
        }
        let of = |selector: &str| index.select("shop", &labels(selector));
        assert_eq!(of("app=cart"), [1, 2]);
        assert_eq!(of("app=cart v=2"), [2]);
        assert_eq!(of(""), [1, 2, 3]);
        assert!(of("app=x").is_empty() && of("v=1 x=y").is_empty() && of("v=").is_empty());
    }
}
