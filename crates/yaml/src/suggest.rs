//! Which known word somebody probably meant.

/// The candidate that is nearest to `word`, if one is near enough to be a likely slip.
///
/// Letter case and the characters `-` and `_` count for nothing; beyond that a third of the letters may differ.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // A longer word cannot be a slip of a field name, and the distance takes time in proportion to the length.
    if word.len() > 64 {
        return None;
    }
    let folded = fold(word);
    candidates
        .iter()
        .map(|candidate| (distance(&folded, &fold(candidate)), *candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3).min(4) && *distance < folded.len())
        .map(|(_, candidate)| candidate)
}

/// The candidates by their distance from `word`, the nearest first.
#[must_use]
pub fn by_distance<'a>(word: &str, candidates: &[&'a str]) -> Vec<&'a str> {
    let folded = fold(&word.chars().take(64).collect::<String>());
    let mut ranked: Vec<(usize, &str)> = candidates.iter().map(|it| (distance(&folded, &fold(it)), *it)).collect();
    ranked.sort();
    ranked.into_iter().map(|(_, candidate)| candidate).collect()
}

fn fold(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Levenshtein's distance with one row.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{by_distance, nearest};

    #[test]
    fn candidates_are_ranked_by_how_alike_they_are() {
        assert_eq!(by_distance("cron-reports", &["web", "orders", "cron-report"])[0], "cron-report");
        assert!(by_distance("x", &[]).is_empty());
    }

    #[test]
    fn misspelled_names_are_recognised_and_other_words_are_not() {
        let known = ["selector", "mtls", "portLevelMtls"];
        assert_eq!(nearest("portLevelMTLS", &known), Some("portLevelMtls"));
        assert_eq!(nearest("port_level_mtls", &known), Some("portLevelMtls"));
        assert_eq!(nearest("selectr", &known), Some("selector"));
        assert_eq!(nearest("mlts", &known), Some("mtls"));
        assert_eq!(nearest("targetRefs", &known), None);
        assert_eq!(nearest("x", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest("anything", &[]), None);
    }
}
