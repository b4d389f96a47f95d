//! The unified diff of two texts.

use std::fmt::Write as _;

/// Lines around a change, as `diff -u` has.
const CONTEXT: usize = 3;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Keep,
    Remove,
    Add,
}

/// The hunks of a unified diff; empty if the texts are equal.
#[must_use]
pub fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let steps = steps(&old, &new);
    let mut text = String::new();
    let is_near = |index: usize| {
        let from = index.saturating_sub(CONTEXT);
        steps
            .get(from..steps.len().min(index.saturating_add(CONTEXT + 1)))
            .is_some_and(|near| near.iter().any(|step| *step != Step::Keep))
    };
    let (mut at_old, mut at_new) = (0_usize, 0_usize);
    let mut hunk = Hunk::default();
    for (index, step) in steps.iter().enumerate() {
        if is_near(index) {
            let line = if *step == Step::Add { new.get(at_new) } else { old.get(at_old) };
            hunk.add(*step, line.copied().unwrap_or_default(), at_old, at_new);
        } else {
            hunk.flush(&mut text);
        }
        at_old = at_old.saturating_add(usize::from(*step != Step::Add));
        at_new = at_new.saturating_add(usize::from(*step != Step::Remove));
    }
    hunk.flush(&mut text);
    text
}

#[derive(Default)]
struct Hunk {
    lines: String,
    old: Side,
    new: Side,
}

#[derive(Default)]
struct Side {
    start: usize,
    count: usize,
}

impl Hunk {
    fn add(&mut self, step: Step, line: &str, at_old: usize, at_new: usize) {
        if self.lines.is_empty() {
            (self.old.start, self.new.start) = (at_old, at_new);
        }
        let sign = match step {
            Step::Keep => ' ',
            Step::Remove => '-',
            Step::Add => '+',
        };
        self.old.count = self.old.count.saturating_add(usize::from(step != Step::Add));
        self.new.count = self.new.count.saturating_add(usize::from(step != Step::Remove));
        let _infallible = writeln!(self.lines, "{sign}{line}");
    }

    fn flush(&mut self, text: &mut String) {
        let Self { lines, old, new } = std::mem::take(self);
        if !lines.is_empty() {
            let _infallible = write!(text, "@@ -{old} +{new} @@\n{lines}");
        }
    }
}

/// `start,count`; the start of an empty side is the line before it.
impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            0 => write!(f, "{},0", self.start),
            1 => write!(f, "{}", self.start.saturating_add(1)),
            count => write!(f, "{},{count}", self.start.saturating_add(1)),
        }
    }
}

/// A shortest way from one text to the other. Resources are short, so the whole table of lengths is made.
fn steps(old: &[&str], new: &[&str]) -> Vec<Step> {
    let width = new.len().saturating_add(1);
    let mut lengths = vec![0_u32; old.len().saturating_add(1).saturating_mul(width)];
    let cell = |row: usize, column: usize| row.saturating_mul(width).saturating_add(column);
    let at = |lengths: &[u32], row: usize, column: usize| lengths.get(cell(row, column)).copied().unwrap_or(0);
    for (row, old) in old.iter().enumerate().rev() {
        for (column, new) in new.iter().enumerate().rev() {
            let length = if old == new {
                at(&lengths, row.saturating_add(1), column.saturating_add(1)).saturating_add(1)
            } else {
                at(&lengths, row.saturating_add(1), column).max(at(&lengths, row, column.saturating_add(1)))
            };
            if let Some(cell) = lengths.get_mut(cell(row, column)) {
                *cell = length;
            }
        }
    }
    let (mut row, mut column, mut steps) = (0, 0, Vec::new());
    loop {
        let step = match (old.get(row), new.get(column)) {
            (None, None) => return steps,
            (Some(old), Some(new)) if old == new => Step::Keep,
            (Some(_), None) => Step::Remove,
            (None, Some(_)) => Step::Add,
            (Some(_), Some(_)) => {
                let without_old = at(&lengths, row.saturating_add(1), column);
                if without_old >= at(&lengths, row, column.saturating_add(1)) { Step::Remove } else { Step::Add }
            }
        };
        row = row.saturating_add(usize::from(step != Step::Add));
        column = column.saturating_add(usize::from(step != Step::Remove));
        steps.push(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_are_those_of_diff() {
        assert_eq!(unified("a\nb\n", "a\nb\n"), "");
        assert_eq!(unified("a\nb\nc\n", "a\nx\nc\n"), "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n");
        assert_eq!(unified("", "a\n"), "@@ -0,0 +1 @@\n+a\n");
        assert_eq!(unified("a\nb\n", ""), "@@ -1,2 +0,0 @@\n-a\n-b\n");
        let (old, new) = ("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "0\n2\n3\n4\n5\n6\n7\n8\n0\n");
        assert_eq!(unified(old, new), "@@ -1,4 +1,4 @@\n-1\n+0\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-9\n+0\n");
    }
}
