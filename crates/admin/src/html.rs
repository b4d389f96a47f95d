//! The page of the workload, and the index page: a link or button for each path, without a script.

use std::fmt::Write as _;

use portcullis_dashboard::{Frame, page};

use crate::paths::{Endpoint, Row};
use crate::{Serves, State, Views};

/// No script, no foreign content, no frame around it: a visitor sees the button that is clicked.
pub(crate) const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The page. The links below it lead to further pages.
pub(crate) fn dashboard(views: &dyn Views, serves: Serves) -> String {
    let is_shown =
        |row: &&Row| matches!(row.endpoint, Endpoint::Index | Endpoint::Page(_) | Endpoint::Metrics | Endpoint::Recent);
    let links = serves.rows().filter(is_shown).map(|row| (row.path, row.summary)).collect();
    page(&views.view(), &Frame { links })
}

/// The index page. `buttons` is false where a browser could not press them with success.
pub(crate) fn index(state: &dyn State, buttons: bool) -> String {
    let mut page = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>portcullis</title>\n\
        <style>body{font-family:sans-serif;margin:2em}td,th{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}\
        form{display:inline}</style></head>\n<body><h1>portcullis</h1>\n<table>\n"
        .to_owned();
    for (name, value) in state.about() {
        row(&mut page, &escape(name), &escape(&value));
    }
    page.push_str("</table>\n<h2>Pages</h2>\n<table>\n");
    for Row { path, endpoint, summary } in Serves::All.rows() {
        let target = match endpoint {
            Endpoint::Change(_) => continue,
            // Without a port it only answers that the port is missing.
            Endpoint::Explain => format!(
                "<form action=\"{path}\"><label>{path} <input name=\"port\" size=\"5\" value=\"8080\"></label> <button>show</button></form>"
            ),
            _ => format!("<a href=\"{path}\">{path}</a>"),
        };
        row(&mut page, &target, &escape(summary));
    }
    page.push_str("</table>\n<h2>Changes</h2>\n<table>\n");
    if buttons {
        let levels = LEVELS.map(|level| button(&format!("/logging?level={level}"), level)).join(" ");
        row(&mut page, &levels, &format!("the log level, now <code>{}</code>", escape(&state.log_filter())));
        for Row { path, endpoint, summary } in Serves::All.rows() {
            if matches!(endpoint, Endpoint::Change(_)) {
                row(&mut page, &button(path, path), &escape(summary));
            }
        }
    } else {
        row(&mut page, "POST", "with the token of admin.tokenFile only, so not from here");
    }
    page.push_str("</table>\n</body></html>\n");
    page
}

fn row(page: &mut String, left: &str, right: &str) {
    let _written = writeln!(page, "<tr><td>{left}</td><td>{right}</td></tr>");
}

fn button(target: &str, text: &str) -> String {
    format!("<form method=\"post\" action=\"{target}\"><button>{text}</button></form>")
}

/// Text as HTML shows it, in an element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_text_whatever_is_in_them() {
        assert_eq!(
            escape(r#"<script>"a" & 'b'</script>"#),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;"
        );
    }
}
