//! Tables as kubectl and istioctl print them: headers in upper case, columns as wide as their widest cell, three spaces between.

use super::clean;
use super::colour::Style;

/// Spaces between two columns.
const GAP: usize = 3;

/// Rows under headers. Nothing is cut: a table that is piped has all of it.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell. Its text may come from others.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, style: Style::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl Table {
    pub(crate) fn new<const N: usize>(headers: [&'static str; N]) -> Self {
        Self { headers: headers.into(), rows: Vec::new() }
    }

    /// With columns that are not known before.
    pub(crate) fn of(headers: impl IntoIterator<Item = &'static str>) -> Self {
        Self { headers: headers.into_iter().collect(), rows: Vec::new() }
    }

    /// More columns, for `-o wide`. Rows get theirs by [`push`](Self::push).
    pub(crate) fn extend<const N: usize>(mut self, headers: [&'static str; N]) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Adds a row; cells beyond the headers are left out.
    pub(crate) fn push(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().take(self.headers.len()).collect());
    }

    /// The lines, each with its newline.
    pub(crate) fn render(&self, headers: bool, colour: bool) -> String {
        let titles = headers.then(|| self.headers.iter().map(|title| Cell::from(*title)).collect::<Vec<_>>());
        let lines: Vec<Vec<(String, Style)>> = titles
            .iter()
            .chain(&self.rows)
            .map(|row| row.iter().map(|cell| (shown(&cell.text), cell.style)).collect())
            .collect();
        let width = |column: usize| lines.iter().filter_map(|row| row.get(column)).map(|(text, _)| length(text)).max();
        let widths: Vec<usize> = (0..self.headers.len()).map(|column| width(column).unwrap_or_default()).collect();
        let mut out = String::new();
        for row in &lines {
            let mut pending = 0;
            for ((text, style), width) in row.iter().zip(&widths) {
                // Spaces only before more text: no line ends with any.
                if !text.is_empty() {
                    out.extend(std::iter::repeat_n(' ', pending));
                    pending = 0;
                    out.push_str(&style.paint(text, colour));
                }
                pending += width.saturating_sub(length(text)).saturating_add(GAP);
            }
            out.push('\n');
        }
        out
    }
}

/// Without characters that would change more than this cell.
fn shown(text: &str) -> String {
    clean(text).into_owned()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "MODE"]).extend(["WHERE"]);
        table.push([Cell::from("payment-service"), Cell::styled("STRICT", Style::Good), Cell::from("a.yaml:1")]);
        table.push(["ü", "PERMISSIVE", ""].map(Cell::from));
        table.push(["x", "", "b.yaml:2", "more than headers"].map(Cell::from));
        table
    }

    #[test]
    fn columns_are_three_spaces_apart_and_no_line_ends_with_spaces() {
        let expected = "\
NAME              MODE         WHERE
payment-service   STRICT       a.yaml:1
ü                 PERMISSIVE
x                              b.yaml:2
";
        assert_eq!(table().render(true, false), expected);
        assert_eq!(table().render(false, false), expected.split_once('\n').unwrap().1);
    }

    #[test]
    fn colour_changes_no_column() {
        let coloured = table().render(true, true);
        assert!(coloured.contains("\x1b[32mSTRICT\x1b[0m       a.yaml:1"), "{coloured}");
        assert_eq!(coloured.replace("\x1b[32m", "").replace("\x1b[0m", ""), table().render(true, false));
    }

    #[test]
    fn a_cell_of_others_stays_in_its_line() {
        let mut table = Table::new(["NAME"]);
        table.push([Cell::from("evil\u{1b}[2J\ninjected   row")]);
        assert_eq!(table.render(false, true), "evil\\u{1b}[2J\\ninjected   row\n");
    }
}
