//! What the reader of policies has found already, under a code.

use portcullis_policy::Diagnostic;

use crate::code::Code;
use crate::finding::{Finding, Subject};
use crate::input::Input;

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    let errors = input.errors.iter().map(|error| {
        let code = if error.reason == "ports-need-selector" { Code::PortsNeedSelector } else { Code::Invalid };
        finding(input, error, code)
    });
    let warnings = input.warnings.iter().filter_map(|warning| {
        let code = match warning.reason {
            "ignored-kind" => Code::DocumentIgnored,
            "service-port" => Code::ServicePort,
            "root-selector" => return None,
            // Those of PeerAuthentications have Kiali's codes.
            "policy-conflict" => return None,
            _ => Code::Doubtful,
        };
        Some(finding(input, warning, code))
    });
    let files = input.ignored_files.iter().map(|file| Finding {
        code: Code::FileIgnored,
        subject: Subject { kind: None, namespace: String::new(), name: String::new(), file: file.clone(), line: 0 },
        text: Code::FileIgnored.meaning().to_owned(),
    });
    errors.chain(warnings).chain(files).collect()
}

fn finding(input: &Input<'_>, diagnostic: &Diagnostic, code: Code) -> Finding {
    let Diagnostic { file, line, field, reason, message, .. } = diagnostic;
    let known = input.at(file, *line).filter(|_| code != Code::DocumentIgnored);
    let subject = known.map_or_else(
        || Subject { kind: None, namespace: String::new(), name: String::new(), file: file.clone(), line: *line },
        |resource| Subject { line: *line, ..resource.subject() },
    );
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    Finding { code, subject, text: format!("{field}{message} [{reason}]") }
}
