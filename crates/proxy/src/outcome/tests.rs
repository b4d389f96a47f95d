use std::collections::HashSet;

use portcullis_policy::PassThroughReason;
use portcullis_telemetry::{ConnRecord, Outcome};

use super::*;

#[test]
fn labels_are_snake_case_and_name_one_reason_each() {
    let mut seen = HashSet::new();
    for reason in Reason::ALL {
        let label = reason.label();
        assert!(seen.insert(label), "{label} names two reasons");
        assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{label}");
    }
}

#[test]
fn every_hint_is_one_line_and_every_row_has_a_sentence_of_documentation() {
    let hints = Reason::ALL.iter().map(|reason| reason.outcome().hint);
    for hint in hints.chain(CONTEXT_HINTS.iter().map(|context| context.hint)) {
        assert!(hint.len() > 20 && !hint.contains(['\n', '"']) && !hint.contains("  "), "{hint}");
    }
    for reason in Reason::ALL {
        assert!(reason.outcome().doc.trim().ends_with('.'), "{reason}");
    }
}

/// Telemetry writes these by itself, for a record that is dropped.
#[test]
fn a_record_that_is_dropped_has_a_reason_of_the_table() {
    let metrics = crate::state::tests::metrics();
    drop(ConnRecord::open(&metrics, Direction::Inbound, "127.0.0.1:9".parse().unwrap()));
    let label = format!("reason=\"{}\"", Reason::Shutdown.label());
    assert!(metrics.encode().unwrap().contains(&label));
}

#[test]
fn silence_is_explained_by_the_mode_and_the_protocol_of_the_port() {
    let hint = |mode, server_first| refused(Refusal::SilentClient, mode, server_first).hint;
    for server_first in [true, false] {
        let strict = hint(Mode::Strict, server_first);
        assert!(strict.contains("no sidecar") && !strict.contains("serverFirst"), "{strict}");
    }
    assert!(hint(Mode::Permissive, false).contains("inbound.serverFirstPorts"));
    assert!(!hint(Mode::Permissive, true).contains("serverFirst"));
}

/// The page is generated from the table; after a change of the table, `REASONS=write cargo test -p portcullis-proxy`.
#[test]
fn the_page_of_reasons_is_the_table() {
    let mut page = String::from(
        "# Reasons\n\nThe values of `reason` in access logs and metrics. A connection that ended cleanly has `-`.\n",
    );
    for reason in Reason::ALL {
        let Outcome { label, stage, decision, flag, hint, doc } = reason.outcome();
        let (doc, stage, decision) = (doc.trim(), stage.as_str(), decision.as_str());
        page += &format!("\n## {label}\n\n{doc}\n\nStage: {stage}. Decision: {decision}. ");
        page += &format!("`response_flags`: `{}`.\n\nHint: {hint}.\n", flag.label());
        for context in CONTEXT_HINTS.iter().filter(|context| context.reason == *reason) {
            page += &format!("\nHint where {}: {}.\n", context.when, context.hint);
        }
    }
    page += "\n# Without mutual TLS\n\nFurther values of `reason` in `portcullis_no_mtls_reason_total`, which has those above \
             for what was refused: inbound\nconnections that were let through without a verified peer.\n";
    for reason in PassThroughReason::ALL {
        page += &format!("\n## {}\n\n{}.\n", reason.label(), reason.meaning());
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/reasons.md");
    if std::env::var("REASONS").is_ok_and(|value| value == "write") {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), page, "docs/reference/reasons.md");
}
