//! Exceptions: who wanted them, why, and until when.

use portcullis_manifest::ResourceKind;
use portcullis_policy::Documentation;
use serde_json::Value;

use crate::code::Code;
use crate::finding::Finding;
use crate::input::{Input, Resource};

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    let policies = input.of(ResourceKind::PeerAuthentication);
    policies
        .flat_map(|policy| exception(policy).into_iter().flat_map(move |what| documented(input, policy, &what)))
        .collect()
}

/// What the policy lets in besides mTLS: `mode PERMISSIVE`, `port 8080 DISABLE`.
fn exception(policy: &Resource) -> Option<String> {
    if let Some(mode) = weak(policy.field(&["spec", "mtls", "mode"])) {
        return Some(format!("mode {mode}"));
    }
    let ports = policy.field(&["spec", "portLevelMtls"])?.as_object()?;
    ports.iter().find_map(|(port, mtls)| Some(format!("port {port} {}", weak(mtls.get("mode"))?)))
}

/// A mode that lets in more than mTLS.
fn weak(mode: Option<&Value>) -> Option<&str> {
    mode.and_then(Value::as_str).filter(|mode| matches!(*mode, "PERMISSIVE" | "DISABLE"))
}

fn documented(input: &Input<'_>, policy: &Resource, what: &str) -> Vec<Finding> {
    let finding = |code, text| Finding { code, subject: policy.subject(), text };
    let annotations = policy.field(&["metadata", "annotations"]);
    let documentation = Documentation::read(|name| annotations?.get(name)?.as_str());
    let missing = documentation.missing();
    let mut findings = Vec::new();
    if !missing.is_empty() {
        let text = format!("the exception ({what}) has no annotation {}", missing.join(", "));
        findings.push(finding(Code::ExceptionUndocumented, text));
    }
    if let Some(end) = &documentation.expires {
        let text = &end.text;
        if end.unix.is_none() {
            findings
                .push(finding(Code::ExceptionEndsNever, format!("expires: {text:?} is no date such as 2026-12-31")));
        } else if end.is_over(input.now_unix) {
            findings.push(finding(Code::ExceptionExpired, format!("the exception ({what}) ended on {text}")));
        }
    }
    findings
}
