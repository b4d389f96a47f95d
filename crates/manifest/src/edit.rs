//! Changes of one document in the text of a file.

use crate::document::{Piece, pieces};

/// Puts other content in the place of a document's. Comments in front of it and behind it stay.
pub(crate) fn replace(text: &str, document: usize, content: &str) -> Option<String> {
    let pieces = pieces(text);
    let piece = pieces.get(document)?;
    let old = piece.content(text);
    let (before, after) = (text.get(..old.start)?, text.get(old.end..)?);
    // A block cannot begin on the line of its `---`.
    let on_marker = old.start == piece.body.start && piece.start < piece.body.start && !before.ends_with('\n');
    let separator = if on_marker { "\n" } else { "" };
    let mut new = format!("{before}{separator}{}", content.trim_matches('\n'));
    if text.get(old)?.ends_with('\n') || !after.is_empty() {
        new.push('\n');
    }
    new.push_str(after);
    Some(new)
}

/// The text without a document; `None` if nothing is left that is worth a file.
pub(crate) fn remove(text: &str, document: usize) -> Option<String> {
    let pieces = pieces(text);
    let piece: &Piece = pieces.get(document)?;
    // What stands in front of the first document may be about the whole file.
    let from = if document == 0 && pieces.len() > 1 { piece.content(text).start } else { piece.start };
    let new = format!("{}{}", text.get(..from)?, text.get(piece.body.end..)?);
    let is_empty = |line: &str| line.trim().is_empty() || matches!(line.trim_end(), "---" | "...");
    (!new.lines().all(is_empty)).then_some(new)
}

/// The content of a document as the text of a new file.
pub(crate) fn alone(text: &str) -> String {
    let mut new = text.trim_start_matches([' ', '\t', '\r', '\n']).trim_end().to_owned();
    new.push('\n');
    new
}

/// The content of a document, without comments in front and behind.
pub(crate) fn content(text: &str) -> String {
    let piece = Piece { start: 0, body: 0..text.len() };
    text.get(piece.content(text)).unwrap_or_default().trim_matches([' ', '\t', '\r', '\n']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# about the file\na: 1\n# behind a\n---\n# about b\nb: 2 # inline\n---\n{c: 3}\n# end\n";

    #[test]
    fn replacing_one_document_leaves_every_other_byte() {
        assert_eq!(replace(FILE, 0, "a: 9\nx: y\n").unwrap(), FILE.replace("a: 1", "a: 9\nx: y"));
        assert_eq!(replace(FILE, 1, "b: 9").unwrap(), FILE.replace("b: 2 # inline", "b: 9"));
        assert_eq!(replace(FILE, 2, "c: 9\n").unwrap(), FILE.replace("{c: 3}", "c: 9"));
        assert_eq!(replace("--- {c: 3}\n", 1, "c: 9").unwrap(), "---\nc: 9\n");
        assert_eq!(replace("a: 1", 0, "a: 9\n").unwrap(), "a: 9");
        assert_eq!(replace(FILE, 3, "d: 4"), None);
    }

    #[test]
    fn removing_one_document_keeps_the_others_and_what_is_about_the_file() {
        assert_eq!(remove(FILE, 1).unwrap(), FILE.replace("---\n# about b\nb: 2 # inline\n", ""));
        let first = remove(FILE, 0).unwrap();
        assert!(first.starts_with("# about the file\n---\n# about b"), "{first}");
        assert_eq!(remove("---\na: 1\n", 1), None);
        assert_eq!(remove("a: 1\n", 0), None);
    }
}
