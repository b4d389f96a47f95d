//! For a terminal.

use std::fmt::Write as _;

use crate::paste::Paste;
use crate::view::{Entry, Section, Table, View};

pub(super) fn render(report: &impl View, is_wide: bool) -> String {
    let table = report.table(is_wide);
    let mut text = if table.rows.is_empty() { String::new() } else { aligned(&table) };
    for line in report.summary() {
        let _infallible = writeln!(text, "{line}");
    }
    for section in report.sections().iter().filter(|section| !section.entries.is_empty()) {
        write_section(&mut text, section, is_wide);
    }
    text
}

fn write_section(text: &mut String, Section { title, entries }: &Section, is_wide: bool) {
    let _infallible = writeln!(text, "\n{title}:");
    for Entry { text: line, fixes } in entries {
        let _infallible = writeln!(text, "  {line}");
        for fix in fixes.iter().take(if is_wide { usize::MAX } else { 1 }) {
            match &fix.paste {
                Paste::Command(command) => {
                    let _infallible = writeln!(text, "    Fix: {} -> `{command}`", fix.what);
                }
                Paste::Yaml(yaml) => {
                    let _infallible = writeln!(text, "    Fix: {}:", fix.what);
                    for line in yaml.lines() {
                        let _infallible = writeln!(text, "      {line}");
                    }
                }
            }
        }
    }
}

/// Columns as wide as their widest cell.
fn aligned(table: &Table) -> String {
    let mut widths: Vec<usize> = table.header.iter().map(|cell| cell.chars().count()).collect();
    for row in &table.rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    line(&mut table.header.iter().copied());
    for row in &table.rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}
