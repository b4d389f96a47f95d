//! What the reader accepts, what it refuses, and where it says that things stand.

use portcullis_yaml::{
    Content, Cursor, Document, MAX_DEPTH, MAX_FILE_BYTES, MAX_PROBLEMS, Mapping, Node, Parsed, Position, Problem,
    Problems, ScalarKind, Style, parse,
};

fn at(line: u32, column: u32) -> Position {
    Position { line, column }
}

/// The only document of a text that is fine.
fn document(text: &str) -> Document {
    let Parsed { mut documents, problems } = parse(text.as_bytes());
    assert_eq!(problems, [], "{text}");
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

/// The problems of a text, as "line:column field reason".
fn problems(text: &str) -> Vec<String> {
    parse(text.as_bytes()).problems.iter().map(line).collect()
}

fn line(problem: &Problem) -> String {
    format!("{} {} {}", problem.position, problem.field, problem.reason)
}

fn mapping(node: &Node) -> &Mapping {
    let Content::Mapping(mapping) = &node.content else { panic!("no mapping: {node:?}") };
    mapping
}

fn value<'t>(document: &'t Document, path: &[&str]) -> &'t Node {
    path.iter().fold(&document.root, |node, key| &mapping(node).get(key).expect("key").value)
}

fn scalar(node: &Node) -> (&str, Style, ScalarKind) {
    let Content::Scalar(scalar) = &node.content else { panic!("no scalar: {node:?}") };
    (&scalar.text, scalar.style, scalar.kind())
}

#[test]
fn every_key_and_value_has_its_position() {
    let document = document("# comment\na: 1\nbb:\n  - x\n  - {c: 'd', \"e\": f}\nü: \"ö\" # end\n");
    let root = mapping(&document.root);
    assert_eq!(document.root.position, at(2, 1));
    let keys: Vec<_> = root.entries.iter().map(|entry| (entry.key.text(), entry.key.position)).collect();
    assert_eq!(keys, [("a", at(2, 1)), ("bb", at(3, 1)), ("ü", at(6, 1))]);
    assert_eq!(value(&document, &["a"]).position, at(2, 4));
    // Columns count characters, not bytes.
    assert_eq!(value(&document, &["ü"]).position, at(6, 4));
    let Content::Sequence(items) = &value(&document, &["bb"]).content else { panic!("no list") };
    assert_eq!(items[0].position, at(4, 5));
    assert_eq!(items[1].position, at(5, 5));
    let inner = mapping(&items[1]);
    assert_eq!(inner.get("c").expect("c").key.position, at(5, 6));
    assert_eq!(inner.get("c").expect("c").value.position, at(5, 9));
    assert_eq!(inner.get("e").expect("e").key.position, at(5, 14));
    assert_eq!(inner.get("e").expect("e").value.position, at(5, 19));
}

#[test]
fn styles_are_kept() {
    let document = document("p: on\ns: 'on'\nd: \"on\"\nl: |\n  on\nf: >\n  on\n");
    assert_eq!(scalar(value(&document, &["p"])), ("on", Style::Plain, ScalarKind::Bool));
    assert_eq!(scalar(value(&document, &["s"])), ("on", Style::Quoted, ScalarKind::String));
    assert_eq!(scalar(value(&document, &["d"])), ("on", Style::Quoted, ScalarKind::String));
    assert_eq!(scalar(value(&document, &["l"])), ("on\n", Style::Block, ScalarKind::String));
    assert_eq!(scalar(value(&document, &["f"])), ("on\n", Style::Block, ScalarKind::String));
}

#[test]
fn an_empty_value_is_not_a_written_null() {
    let document = document("empty:\ntilde: ~\nnull: null\nquoted: ''\n");
    let root = Cursor::root(&document);
    let field = |name: &str| root.peek(name).expect("field");
    assert!(field("empty").is_absent() && field("empty").is_null());
    assert!(!field("tilde").is_absent() && field("tilde").is_null());
    assert_eq!(scalar(field("tilde").node()).0, "~");
    assert!(!field("null").is_absent() && field("null").is_null());
    assert!(!field("quoted").is_absent() && !field("quoted").is_null());
    assert_eq!(field("empty").position().line, 1);
}

#[test]
fn documents_are_separate_and_empty_ones_are_left_out() {
    let parsed = parse(b"---\n# nothing\n---\na: 1\n---\n---\nb: 2\n...\n---\n");
    assert_eq!(parsed.problems, []);
    let places: Vec<_> = parsed.documents.iter().map(|document| document.root.position).collect();
    assert_eq!(places, [at(4, 1), at(7, 1)]);
    for text in ["", "\n\n", "# only a comment\n", "---\n", "\u{feff}", "---\n---\n"] {
        assert_eq!(parse(text.as_bytes()), Parsed::default(), "{text:?}");
    }
    // A written null is a document all the same: somebody meant something by it.
    assert_eq!(parse(b"~\n").documents.len(), 1);
}

#[test]
fn after_a_syntax_error_reading_goes_on_with_the_next_document() {
    let parsed = parse(b"a: [1\n---\nk: v\n---\n\tbad: x\n  q: [}\n---\nlast: 1");
    let places: Vec<_> = parsed.documents.iter().map(|document| document.root.position).collect();
    assert_eq!(places, [at(3, 1), at(8, 1)]);
    let found: Vec<_> = parsed.problems.iter().map(|problem| (problem.position, problem.reason)).collect();
    assert_eq!(found, [(at(1, 4), "yaml-syntax"), (at(6, 4), "yaml-syntax")]);
    assert!(parsed.problems.iter().all(|problem| !problem.message.is_empty()), "{:?}", parsed.problems);
}

#[test]
fn a_document_counts_only_at_its_end() {
    let parsed = parse(b"mode: STRICT\nmore: [\n");
    assert_eq!(parsed.documents, []);
    assert_eq!(parsed.problems.len(), 1);
    // A scalar at the top is complete before the error that follows it.
    let parsed = parse(b"text\n]: x\n");
    assert_eq!(parsed.documents, []);
    assert_eq!(parsed.problems.len(), 1);
}

#[test]
fn a_repeated_key_names_both_places() {
    let parsed = parse(b"spec:\n  ports:\n    8080: {mode: A}\n    x: 1\n    \"8080\": {mode: B}\n");
    assert_eq!(parsed.problems.iter().map(line).collect::<Vec<_>>(), ["5:5 spec.ports[8080] duplicate-key"]);
    assert!(parsed.problems[0].message.contains("3:5"), "{}", parsed.problems[0].message);
    // The rest of the document is still there to be checked, with the first of the two.
    let Content::Mapping(_) = &parsed.documents[0].root.content else { panic!("no mapping") };
    assert_eq!(scalar(value(&parsed.documents[0], &["spec", "ports", "8080", "mode"])).0, "A");
    assert_eq!(problems("a: 1\na: 2\na: 3\n"), ["2:1 a duplicate-key", "3:1 a duplicate-key"]);
    assert_eq!(problems("- {a: 1}\n- {a: 1}\n"), [] as [&str; 0]);
}

#[test]
fn anchors_aliases_tags_merges_and_directives_are_refused_where_they_stand() {
    let table: [(&str, &[&str]); 15] = [
        ("a: &x 1\n", &["1:4 a yaml-syntax"]),
        ("a: &x\n  b: 1\n", &["1:4 a yaml-syntax"]),
        ("&x a: 1\n", &["1:1  yaml-syntax"]),
        ("a: &x 1\nb: *x\n", &["1:4 a yaml-syntax", "2:4 b yaml-syntax"]),
        ("a: *missing\nb: *gone\n", &["1:4 a yaml-syntax", "2:4 b yaml-syntax"]),
        ("a:\n  - 1\n  - *x\n", &["3:5 a[1] yaml-syntax"]),
        ("*x : 1\n", &["1:1  yaml-syntax"]),
        ("a: !!str 1\n", &["1:4 a yaml-syntax"]),
        ("a: !local {b: 1}\n", &["1:4 a yaml-syntax"]),
        ("a: !!seq [1]\n", &["1:4 a yaml-syntax"]),
        ("a: ! 1\n", &["1:4 a yaml-syntax"]),
        ("a:\n  <<: {b: 1}\n", &["2:3 a[<<] yaml-syntax"]),
        ("%YAML 1.2\n---\na: 1\n", &["1:1  yaml-syntax"]),
        ("%TAG ! tag:x,2000:\n---\na: 1\n", &["1:1  yaml-syntax"]),
        ("? [a, b]\n: 1\n? {c: d}\n: 2\n", &["1:3 [?] yaml-syntax", "3:3 [?] yaml-syntax"]),
    ];
    for (text, expected) in table {
        assert_eq!(problems(text), expected, "{text}");
    }
    // In quotes it is a key like any other.
    assert_eq!(problems("\"<<\": 1\n"), [] as [&str; 0]);
}

#[test]
fn an_alias_is_reported_once_only() {
    let parsed = parse(b"name: *x\n");
    let mut more = Problems::new();
    let root = Cursor::root(&parsed.documents[0]);
    let fields = root.fields(&["name"], &mut more).expect("fields");
    let name = fields.get("name").expect("name");
    assert_eq!(name.string(&mut more), None);
    assert_eq!(name.integer(0, 9, &mut more), None);
    assert!(name.items(&mut more).is_none() && name.entries(&mut more).is_none());
    assert_eq!(parsed.problems.len(), 1);
    assert!(more.is_empty());
}

#[test]
fn a_billion_laughs_document_is_refused_cheaply() {
    let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (name, before) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        let nine = vec![format!("*{before}"); 9].join(", ");
        text.push_str(&format!("{name}: &{name} [{nine}]\n"));
    }
    let parsed = parse(text.as_bytes());
    assert_eq!(parsed.problems.len(), 9 + 8 * 9);
    assert!(parsed.problems.iter().all(|problem| problem.reason == "yaml-syntax"));
}

#[test]
fn nesting_is_limited_in_every_notation() {
    let flow = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let block = |depth: usize| (0..depth).map(|level| format!("{}a:\n", " ".repeat(level))).collect::<String>();
    let compact = |depth: usize| format!("{}x\n", "- ".repeat(depth));
    // Half of it block, half flow: each of the parser's own limits is kept.
    let mixed = |depth: usize| format!("{}{}\n", "- ".repeat(depth / 2), flow(depth - depth / 2));
    for make in [&flow as &dyn Fn(usize) -> String, &block, &compact, &mixed] {
        assert_eq!(parse(make(MAX_DEPTH).as_bytes()).problems, [], "{}", make(MAX_DEPTH));
        let parsed = parse(make(MAX_DEPTH + 1).as_bytes());
        assert_eq!(parsed.documents, []);
        assert_eq!(parsed.problems.len(), 1, "{:?}", parsed.problems);
        assert_eq!(parsed.problems[0].reason, "yaml-syntax");
    }
    for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), "? ".repeat(100_000)] {
        let parsed = parse(text.as_bytes());
        assert_eq!((parsed.documents.len(), parsed.problems.len()), (0, 1));
    }
    // What follows a document that is too deep is read.
    let parsed = parse(format!("{}\n---\na: 1\n", mixed(MAX_DEPTH + 1)).as_bytes());
    assert_eq!((parsed.documents.len(), parsed.problems.len()), (1, 1));
}

#[test]
fn errors_are_capped_and_reading_ends() {
    let parsed = parse("a: [\n---\n".repeat(20_000).as_bytes());
    assert_eq!(parsed.problems.len(), MAX_PROBLEMS + 1);
    assert!(parsed.problems[MAX_PROBLEMS].message.contains("more problems not shown"));
    // Problems that end no document are capped as well.
    let parsed = parse("- *x\n".repeat(20_000).as_bytes());
    assert_eq!(parsed.problems.len(), MAX_PROBLEMS + 1);
    assert_eq!(parsed.documents.len(), 1);
}

#[test]
fn a_byte_order_mark_takes_no_column() {
    let document = document("\u{feff}kind: x\n");
    assert_eq!(mapping(&document.root).get("kind").expect("kind").key.position, at(1, 1));
}

#[test]
fn control_characters_and_other_encodings_are_refused() {
    for text in ["a: \u{1}\n", "a: \"\u{7}\"\n", "a: x\0\n", "a: '\u{1b}[31m'\n"] {
        assert_eq!(parse(text.as_bytes()).problems.len(), 1, "{text:?}");
        assert_eq!(parse(text.as_bytes()).documents, [], "{text:?}");
    }
    let parsed = parse(b"ok: 1\nbad: \xff\xfe\n");
    assert_eq!(parsed.problems.iter().map(line).collect::<Vec<_>>(), ["2:6  yaml-syntax"]);
    let utf16: Vec<u8> = "\u{feff}a: 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(parse(&utf16).problems[0].position, at(1, 1));
    // Escapes of JSON are fine.
    let document = document(r#"{"a": "\ud83d\ude00\n"}"#);
    assert_eq!(scalar(value(&document, &["a"])).0, "\u{1f600}\n");
}

#[test]
fn a_file_over_the_limit_is_not_read() {
    let mut text = b"a: 1\n#".to_vec();
    text.resize(MAX_FILE_BYTES, b'x');
    assert_eq!(parse(&text).problems, []);
    text.push(b'x');
    let parsed = parse(&text);
    assert_eq!(parsed.documents, []);
    assert_eq!(parsed.problems.iter().map(line).collect::<Vec<_>>(), ["1:1  file-too-large"]);
}

#[test]
fn messages_hold_no_control_characters() {
    let texts = ["\"a\\e[31m\": 1\n\"a\\e[31m\": 2\n", "a: !<\u{202e}> x\n", "\"a\\nb\":\n  - *x\n"];
    for text in texts {
        for problem in parse(text.as_bytes()).problems {
            let shown = problem.to_string();
            assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
        }
    }
}

mod walking {
    use super::*;

    /// Walks the one document of a text and gives back what was reported.
    fn walk(text: &str, walk: impl FnOnce(Cursor<'_>, &mut Problems)) -> Vec<String> {
        let document = document(text);
        let mut problems = Problems::new();
        walk(Cursor::root(&document), &mut problems);
        problems.into_vec().iter().map(line).collect()
    }

    #[test]
    fn unknown_fields_are_reported_at_their_key_with_the_nearest_name() {
        let document = document("spec:\n  portLevelMTLS: {}\n  zzz: 1\n  mtls: 1\n");
        let mut problems = Problems::new();
        let spec = Cursor::root(&document).peek("spec").expect("spec");
        let fields = spec.fields(&["selector", "mtls", "portLevelMtls"], &mut problems).expect("fields");
        assert!(fields.get("mtls").is_some() && fields.get("selector").is_none());
        assert_eq!(fields.key_position("mtls"), Some(at(4, 3)));
        let found = problems.into_vec();
        assert_eq!(
            found.iter().map(line).collect::<Vec<_>>(),
            ["2:3 spec.portLevelMTLS unknown-field", "3:3 spec.zzz unknown-field"]
        );
        assert!(found[0].message.contains("\"portLevelMtls\"?"), "{}", found[0].message);
        assert!(found[1].message.contains("selector, mtls, portLevelMtls"), "{}", found[1].message);
    }

    #[test]
    fn paths_show_fields_keys_and_items() {
        let found = walk("ports:\n  - listen: 1\nmap:\n  8080:\n    mode: 1\n", |root, problems| {
            let fields = root.fields(&["ports", "map"], problems).expect("fields");
            for item in fields.get("ports").and_then(|ports| ports.items(problems)).expect("items") {
                item.fields(&["listen"], problems)
                    .and_then(|port| port.get("listen"))
                    .expect("listen")
                    .string(problems);
            }
            for (key, entry) in fields.get("map").and_then(|map| map.entries(problems)).expect("entries") {
                assert_eq!((key.text(), key.position), ("8080", at(4, 3)));
                entry.fields(&["mode"], problems).and_then(|entry| entry.get("mode")).expect("mode").string(problems);
            }
            fields.require("gone", problems);
        });
        assert_eq!(
            found,
            ["1:1 gone missing-field", "2:13 ports[0].listen wrong-type", "5:11 map[8080].mode wrong-type"]
        );
    }

    #[test]
    fn a_string_is_a_string_for_every_reader() {
        let good = ["STRICT", "'8080'", "\"true\"", "2026-01-01", "'~'", "''", "|\n  7"];
        for text in good {
            assert_eq!(
                walk(&format!("a: {text}\n"), |root, problems| {
                    assert!(root.peek("a").expect("a").string(problems).is_some(), "{text}");
                }),
                [] as [&str; 0]
            );
        }
        for text in ["8080", "1.5", "true", "off", "~", "null", "", "[a]", "{a: b}"] {
            let found = walk(&format!("a: {text}\n"), |root, problems| {
                assert_eq!(root.peek("a").expect("a").string(problems), None, "{text}");
            });
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].ends_with(" a wrong-type"), "{found:?}");
        }
    }

    #[test]
    fn booleans_and_numbers_are_read_strictly() {
        let boolean = |text: &str| {
            let mut got = None;
            let found = walk(&format!("a: {text}\n"), |root, p| got = root.peek("a").expect("a").boolean(p));
            assert_eq!(got.is_none(), found.len() == 1, "{text}");
            got
        };
        assert_eq!(boolean("true"), Some(true));
        assert_eq!(boolean("False"), Some(false));
        for text in ["yes", "on", "'true'", "1", "", "~", "[]"] {
            assert_eq!(boolean(text), None, "{text}");
        }

        let integer = |text: &str| {
            let mut got = None;
            let found = walk(&format!("a: {text}\n"), |root, p| got = root.peek("a").expect("a").integer(-5, 100, p));
            (got, found.first().map(|found| found.rsplit(' ').next().expect("reason").to_owned()))
        };
        for (text, number) in [("0", 0), ("-5", -5), ("100", 100), ("42", 42)] {
            assert_eq!(integer(text), (Some(number), None));
        }
        for text in ["101", "-6", "99999999999999999999999"] {
            assert_eq!(integer(text), (None, Some("out-of-range".to_owned())), "{text}");
        }
        for text in ["+1", "0x1", "010", "1_0", "'1'", "1.0", "1e1", "12:30", "true", "", "x", "{}", "[]"] {
            assert_eq!(integer(text), (None, Some("wrong-type".to_owned())), "{text}");
        }
    }

    #[test]
    fn the_collector_is_bounded_and_sorted() {
        let mut problems = Problems::new();
        for line in (1..=300).rev() {
            problems.push(Problem { position: at(line, 1), field: String::new(), reason: "x", message: String::new() });
        }
        assert!(problems.is_full());
        let all = problems.into_vec();
        assert_eq!(all.len(), MAX_PROBLEMS + 1);
        assert!(all[..MAX_PROBLEMS].is_sorted_by_key(|problem| problem.position));
        assert!(all[MAX_PROBLEMS].message.contains("not shown"));
    }

    #[test]
    fn a_key_that_fills_the_screen_is_cut_in_paths() {
        let key = "k".repeat(900);
        let found = walk(&format!("{key}: 1\n"), |root, problems| {
            root.fields(&["mtls"], problems);
        });
        assert_eq!(found.len(), 1);
        assert!(found[0].len() < 200, "{}", found[0]);
    }
}

/// What is a comment for readers of YAML 1.2 would be policy for those of 1.1.
#[test]
fn line_ends_that_readers_disagree_about_are_refused() {
    for character in ['\u{85}', '\u{2028}', '\u{2029}'] {
        let text = format!("a: 1\n#{character}b: 2\n");
        assert_eq!(problems(&text), ["2:2  yaml-syntax"], "{}", character.escape_unicode());
    }
    assert_eq!(problems("a: \"\\x85 \\u2028\"\n"), Vec::<String>::new(), "escapes are the same to everybody");
}

#[test]
fn a_document_behind_an_end_mark_needs_a_mark_of_its_own() {
    assert_eq!(problems("a: 1\n...\nb: 2\n").len(), 1);
    assert_eq!(problems("a: 1\n...\n---\nb: 2\n"), Vec::<String>::new());
    assert_eq!(problems("a: 1\n---\nb: 2\n...\n"), Vec::<String>::new());
}

#[test]
fn a_byte_that_is_not_utf8_is_located_whatever_ends_the_lines() {
    for text in [b"a: 1\nb: \xff".as_slice(), b"a: 1\r\nb: \xff", b"a: 1\rb: \xff"] {
        let found: Vec<_> = parse(text).problems.iter().map(|problem| problem.position).collect();
        assert_eq!(found, [at(2, 4)], "{}", String::from_utf8_lossy(text));
    }
}
