//! Comma-separated values (RFC 4180, with lines as everywhere else), for spreadsheets.

use crate::view::View;

pub(super) fn render(report: &impl View) -> String {
    let table = report.table(true);
    let mut text = table.header.join(",");
    text.push('\n');
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(|cell| quoted(cell)).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

/// A cell in quotes. A spreadsheet would calculate what begins like a formula.
fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '@', '\t']) || cell.starts_with('-') && cell.len() > 1;
    format!("\"{}{}\"", if is_formula { "'" } else { "" }, cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_cell_is_one_cell_and_no_formula() {
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
        assert_eq!(quoted("-"), "\"-\"");
    }
}
