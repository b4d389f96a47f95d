//! A file that lists sidecars: an address on each line.
//!
//! A line may begin with `- `, so a YAML list of addresses is such a file too; `#` begins a comment.

use crate::address::{AddressError, AdminAddress};
use crate::source::SidecarSource;

/// One line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Entry {
    /// A sidecar.
    Address(AdminAddress),
    /// Every address of a name.
    Dns {
        /// The name.
        name: String,
        /// The admin port.
        port: u16,
    },
}

/// Reads the lines of `file`.
///
/// # Errors
/// Every wrong line, with `file:line`, one a line.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Entry>, String> {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let Some(value) = value(line) else { continue };
        match entry(value) {
            Ok(entry) => entries.push(entry),
            Err(error) => problems.push(format!("{file}:{}: {error}", index.saturating_add(1))),
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(problems.join("\n")) }
}

fn entry(text: &str) -> Result<Entry, AddressError> {
    if !text.starts_with("dns:") {
        return AdminAddress::parse(text).map(Entry::Address);
    }
    match SidecarSource::parse(text)? {
        SidecarSource::Dns { name, port } => Ok(Entry::Dns { name, port }),
        _ => Err(AddressError::Host(text.to_owned())),
    }
}

/// The address of a line; `None` if the line has none: it is empty, a comment, or the beginning of a YAML document.
fn value(line: &str) -> Option<&str> {
    let line = match line.find('#') {
        // As in YAML: within a word it is no comment.
        Some(at) if line.get(..at)?.chars().next_back().is_none_or(char::is_whitespace) => line.get(..at)?,
        _ => line,
    };
    let line = line.trim();
    let item = match line.strip_prefix('-') {
        Some(rest) if rest.is_empty() || rest.starts_with(char::is_whitespace) => rest.trim(),
        _ => line,
    };
    let quoted = |quote: char| item.strip_prefix(quote).and_then(|item| item.strip_suffix(quote));
    let item = quoted('"').or_else(|| quoted('\'')).unwrap_or(item);
    (!item.is_empty() && item != "---").then_some(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_and_a_yaml_list_say_the_same() {
        let plain = "# the shop\n127.0.0.1:1\n\nunix:/run/a.sock # cart\ndns:mesh.test:2\n";
        let yaml = "---\n# the shop\n- 127.0.0.1:1\n-   \"unix:/run/a.sock\" # cart\n- 'dns:mesh.test:2'\n";
        let expected = vec![
            Entry::Address(AdminAddress::Tcp("127.0.0.1:1".to_owned())),
            Entry::Address(AdminAddress::Unix("/run/a.sock".into())),
            Entry::Dns { name: "mesh.test".to_owned(), port: 2 },
        ];
        assert_eq!(parse("p", plain).as_ref(), Ok(&expected));
        assert_eq!(parse("p", yaml), Ok(expected));
        assert_eq!(parse("p", "# nothing yet\n"), Ok(vec![]));
    }

    #[test]
    fn every_wrong_line_is_reported_with_its_place() {
        let errors = parse("p.yaml", "127.0.0.1:1\nhttps://a\n- proxies: [a]\ndns::3\n").unwrap_err();
        let lines: Vec<_> = errors.lines().collect();
        assert_eq!(lines.len(), 3, "{errors}");
        assert!(lines[0].starts_with("p.yaml:2: ") && lines[0].contains("plain HTTP"), "{errors}");
        assert!(lines[1].starts_with("p.yaml:3: ") && lines[2].starts_with("p.yaml:4: "), "{errors}");
    }
}
