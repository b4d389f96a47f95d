//! The reader is total: whatever the bytes are, it answers, and what it answers is bounded and in place.

use portcullis_yaml::{Content, Cursor, MAX_DEPTH, MAX_PROBLEMS, Node, Parsed, Position, Problems, parse};
use proptest::prelude::*;

fn depth(node: &Node) -> usize {
    match &node.content {
        Content::Scalar(_) | Content::Refused => 0,
        Content::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Content::Mapping(mapping) => 1 + mapping.entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}

/// Calls every accessor on every node.
fn walk(cursor: &Cursor<'_>, problems: &mut Problems) {
    cursor.string(problems);
    cursor.boolean(problems);
    cursor.integer(0, 65_535, problems);
    cursor.fields(&["spec", "mtls", "mode"], problems);
    for (_, entry) in cursor.entries(problems).unwrap_or_default() {
        walk(&entry, problems);
    }
    for item in cursor.items(problems).unwrap_or_default() {
        walk(&item, problems);
    }
}

fn within(position: Position, text: &[u8]) -> bool {
    let lines: Vec<_> = String::from_utf8_lossy(text).split(['\n', '\r']).map(|line| line.chars().count()).collect();
    let widest = lines.iter().max().copied().unwrap_or(0);
    position.line >= 1
        && position.column >= 1
        && position.line as usize <= lines.len() + 1
        && position.column as usize <= widest + 2
}

fn check(text: &[u8]) -> Parsed {
    let parsed = parse(text);
    assert!(parsed.problems.len() <= MAX_PROBLEMS + 1);
    for problem in &parsed.problems {
        assert!(within(problem.position, text), "{problem} outside of {:?}", String::from_utf8_lossy(text));
        assert!(!problem.message.is_empty(), "{problem:?}");
    }
    for document in &parsed.documents {
        assert!(depth(&document.root) <= MAX_DEPTH);
        walk(&Cursor::root(document), &mut Problems::new());
    }
    assert_eq!(parse(text), parsed, "reading the same text twice gives the same");
    parsed
}

/// Pieces that YAML gives a meaning to, so that random texts reach further than the first character.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "? ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "\"",
        "'",
        "|\n",
        ">-\n",
        "&x ",
        "*x",
        "!t ",
        "!!str ",
        "<<: ",
        "%YAML 1.2\n",
        "---\n",
        "\n---\n",
        "...\n",
        "# c\n",
        "~",
        "\t",
        "8080",
        "\u{feff}",
        "\u{1}",
        "é",
        "\r\n",
        "mode: STRICT\n",
        "\\",
        "@",
        "`",
        "0x1",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn arbitrary_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes);
    }

    #[test]
    fn arbitrary_text_is_answered(text in "\\PC{0,200}") {
        check(text.as_bytes());
    }

    #[test]
    fn texts_made_of_yaml_are_answered(text in yaml_like()) {
        check(text.as_bytes());
    }

    /// A broken document neither hides nor changes those that stand around it.
    #[test]
    fn documents_do_not_touch_each_other(broken in yaml_like()) {
        // What makes documents of its own is left out.
        let broken = broken.replace("--", "").replace("...", "").replace('%', "");
        let whole = parse(format!("first: 1\n---\n{broken}\n---\nlast: 1\n").as_bytes());
        // Broken text in a quoted scalar may swallow the marker only as an error, never as content.
        let keys: Vec<_> = whole.documents.iter().filter_map(|document| match &document.root.content {
            Content::Mapping(mapping) => mapping.entries.first().map(|entry| entry.key.text().to_owned()),
            _ => None,
        }).collect();
        prop_assert_eq!(keys.first().map(String::as_str), Some("first"));
        prop_assert_eq!(keys.last().map(String::as_str), Some("last"));
    }
}
