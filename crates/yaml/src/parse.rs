//! From parser events to trees.

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag, options};

use crate::cursor::printable;
use crate::limits::{MAX_DEPTH, MAX_FILE_BYTES};
use crate::problem::{Position, Problem, Problems, reason};
use crate::scalar::{Scalar, Style};
use crate::tree::{Content, Document, Node};

use builder::Builder;

mod builder;

/// What a text holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parsed {
    /// The documents that were read to their end, in order. Documents without any value are left out.
    pub documents: Vec<Document>,
    /// What is wrong, by position. If it is not empty, the documents are good only for finding more problems.
    pub problems: Vec<Problem>,
}

/// Reads all documents of a text.
///
/// It never fails as a whole: what could be read is in [`Parsed::documents`], everything else in [`Parsed::problems`].
#[must_use]
pub fn parse(text: &[u8]) -> Parsed {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes, more than the {MAX_FILE_BYTES} that are read", text.len());
        return Parsed { documents: Vec::new(), problems: vec![whole_file(reason::FILE_TOO_LARGE, message)] };
    }
    match std::str::from_utf8(text) {
        // Stripped here so that it takes no column.
        Ok(text) => read(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let (good, _) = text.split_at_checked(error.valid_up_to()).unwrap_or_default();
            let position = end_of(&String::from_utf8_lossy(good));
            let problem =
                Problem { position, ..whole_file(reason::YAML_SYNTAX, "the text is not UTF-8 from here".to_owned()) };
            Parsed { documents: Vec::new(), problems: vec![problem] }
        }
    }
}

fn whole_file(reason: &'static str, message: String) -> Problem {
    Problem { position: Position::START, field: String::new(), reason, message }
}

/// The position right behind a text. A line ends with LF, CR LF, or CR alone (YAML 1.2.2, section 5.4).
fn end_of(text: &str) -> Position {
    const ENDS: [char; 2] = ['\n', '\r'];
    let text = text.replace("\r\n", "\n");
    let column = text.rsplit(ENDS).next().unwrap_or_default().chars().count() + 1;
    Position { line: count(text.matches(ENDS).count() + 1), column: count(column) }
}

/// Characters that end a line for readers of YAML 1.1 and mean nothing to those of 1.2: what is a comment for one is policy
/// for the other.
const OTHER_LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

fn read(text: &str) -> Parsed {
    if let Some((good, rest)) = text.find(OTHER_LINE_ENDS).and_then(|at| text.split_at_checked(at)) {
        let message = format!(
            "the character {} ends a line for some readers of YAML and not for others; write it as an escape in double quotes",
            rest.chars().next().unwrap_or_default().escape_unicode()
        );
        let problem = Problem { position: end_of(good), ..whole_file(reason::YAML_SYNTAX, message) };
        return Parsed { documents: Vec::new(), problems: vec![problem] };
    }
    let options = options! {
        disallow_directives: true,
        // Reported like every other alias instead of as a syntax error that ends the document.
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut problems = Problems::new();
    let mut documents = Vec::new();
    let mut builder = Builder::new();
    // No text needs as many events; a parser that never ends is stopped by it.
    let mut events_left = text.len().saturating_mul(16).saturating_add(64);

    while let Some(next) = parser.next_event() {
        events_left = events_left.saturating_sub(1);
        if events_left == 0 {
            break;
        }
        let step = match next {
            Ok((event, span)) => {
                let first = documents.is_empty() && problems.is_empty();
                feed(event, span, first, &mut builder, &mut problems)
            }
            Err(error) => {
                problems.push(syntax(&error));
                Step::Abandon
            }
        };
        match step {
            Step::More => {}
            Step::Document(root) => documents.push(Document { root }),
            Step::Abandon => {
                // Every error counts towards the limit, so that this loop ends whatever the parser does.
                if problems.is_full() {
                    break;
                }
                builder = Builder::new();
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    break;
                }
            }
        }
    }
    Parsed { documents, problems: problems.into_vec() }
}

/// What to do after an event.
enum Step {
    More,
    Document(Node),
    Abandon,
}

fn feed(event: Event<'_>, span: Span, first: bool, builder: &mut Builder, problems: &mut Problems) -> Step {
    let at = position(span.start);
    match event {
        Event::DocumentStart(explicit, ..) => {
            *builder = Builder::new();
            if !explicit && !first {
                let message =
                    "a document that follows `...` is skipped by some readers; begin it with `---`".to_owned();
                builder.refuse(at, message, problems);
            }
        }
        Event::DocumentEnd => return builder.finish().map_or(Step::More, Step::Document),
        Event::Anchor(_, name) => {
            builder.refuse_anchor(
                at,
                format!("anchors (`&{}`) are not allowed; write the value out", printable(&name)),
                problems,
            );
        }
        Event::UnresolvedAlias(name) => {
            builder.refuse(
                at,
                format!("aliases (`*{}`) are not allowed; write the value out", printable(&name)),
                problems,
            );
            builder.add(Node { position: at, content: Content::Refused }, problems);
        }
        Event::Alias(_) => {
            builder.refuse(at, "aliases (`*name`) are not allowed; write the value out".to_owned(), problems);
            builder.add(Node { position: at, content: Content::Refused }, problems);
        }
        Event::Scalar(text, style, anchor, tag) => {
            builder.note_anchor(anchor);
            refuse_tag(tag.as_deref(), &span, builder, problems);
            // The parser gives `~` for a value that is not there; only the span tells.
            let absent = style == ScalarStyle::Plain && span.is_empty();
            let text = if absent { String::new() } else { text.into_owned() };
            let style = match style {
                ScalarStyle::Plain => Style::Plain,
                ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
            };
            builder.add(Node { position: at, content: Content::Scalar(Scalar { text, style }) }, problems);
        }
        Event::SequenceStart(_, anchor, tag) => {
            builder.note_anchor(anchor);
            refuse_tag(tag.as_deref(), &span, builder, problems);
            return open(builder, at, false, problems);
        }
        Event::MappingStart(_, anchor, tag) => {
            builder.note_anchor(anchor);
            refuse_tag(tag.as_deref(), &span, builder, problems);
            return open(builder, at, true, problems);
        }
        Event::SequenceEnd | Event::MappingEnd => builder.close(problems),
        // The start and the end of the stream; comments are compiled out.
        _ => {}
    }
    Step::More
}

fn open(builder: &mut Builder, at: Position, mapping: bool, problems: &mut Problems) -> Step {
    // The parser's own limits count flow and block collections apart.
    if builder.depth() >= MAX_DEPTH {
        builder.refuse(at, format!("nested deeper than {MAX_DEPTH} levels"), problems);
        return Step::Abandon;
    }
    if mapping {
        builder.open_mapping(at)
    } else {
        builder.open_sequence(at)
    }
    Step::More
}

fn refuse_tag(tag: Option<&Tag>, span: &Span, builder: &Builder, problems: &mut Problems) {
    if let Some(tag) = tag {
        let at = position(span.tag_start().unwrap_or(span.start));
        let name = printable(&tag.original());
        builder.refuse(at, format!("tags (`{name}`) are not allowed; quote a value to make it a string"), problems);
    }
}

fn syntax(error: &ScanError) -> Problem {
    let message = match error.kind() {
        ErrorKind::DirectiveDisallowed => "directives (`%...`) are not allowed".to_owned(),
        _ => printable(&error.info()),
    };
    Problem { position: position(*error.marker()), field: String::new(), reason: reason::YAML_SYNTAX, message }
}

fn position(mark: Marker) -> Position {
    Position { line: count(mark.line().max(1)), column: count(mark.col().saturating_add(1)) }
}

/// A file has at most [`MAX_FILE_BYTES`] lines, so this never saturates.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
