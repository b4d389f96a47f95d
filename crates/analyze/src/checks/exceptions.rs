//! Exceptions: who wanted them, why, and until when.

use portcullis_manifest::Kind;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use crate::code::Code;
use crate::finding::Finding;
use crate::input::{Input, Resource};

/// The annotations, with our prefix or without one.
const ANNOTATIONS: [&str; 3] = ["owner", "reason", "expires"];
const PREFIX: &str = "portcullis/";

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    let policies = input.of(Kind::PeerAuthentication);
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

fn annotation<'p>(policy: &'p Resource, name: &str) -> Option<&'p str> {
    let prefixed = format!("{PREFIX}{name}");
    let all = ["metadata", "annotations"];
    let at = |name: &str| policy.field(&all)?.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty());
    at(&prefixed).or_else(|| at(name))
}

fn documented(input: &Input<'_>, policy: &Resource, what: &str) -> Vec<Finding> {
    let finding = |code, text| Finding { code, subject: policy.subject(), text };
    let missing: Vec<&str> = ANNOTATIONS.into_iter().filter(|name| annotation(policy, name).is_none()).collect();
    let mut findings = Vec::new();
    if !missing.is_empty() {
        let text = format!("the exception ({what}) has no annotation {}", missing.join(", "));
        findings.push(finding(Code::ExceptionUndocumented, text));
    }
    if let Some(text) = annotation(policy, "expires") {
        match end(text) {
            None => findings
                .push(finding(Code::ExceptionEndsNever, format!("expires: {text:?} is no date such as 2026-12-31"))),
            Some(end) if end <= input.now_unix => {
                findings.push(finding(Code::ExceptionExpired, format!("the exception ({what}) ended on {text}")));
            }
            Some(_) => {}
        }
    }
    findings
}

/// The end of a day, or a moment.
fn end(text: &str) -> Option<i64> {
    let day = Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    let end_of_day = day.and_then(Date::next_day).map(|next| next.midnight().assume_utc());
    end_of_day.or_else(|| OffsetDateTime::parse(text, &Rfc3339).ok()).map(OffsetDateTime::unix_timestamp)
}
