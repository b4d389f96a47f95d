//! Whether connections are redirected to the sidecars that have a listener for it.

use portcullis_api::{Capture, CaptureListener, CaptureRules, Timestamp};

use super::facts::Known;
use super::model::Finding;
use crate::text::ago;

pub(super) fn rules(known: &[&Known], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for known in known {
        match &known.status {
            None => findings.push(Finding::too_old(known)),
            Some(status) => {
                let config = &status.config_file.source;
                findings.extend(evaluate(&status.capture, config, Some(known), now));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::skipped("no proxy has a transparent listener: nothing is to be redirected"));
    }
    findings
}

/// None without a transparent listener.
pub(super) fn evaluate(capture: &Capture, config: &str, about: Option<&Known>, now: Timestamp) -> Option<Finding> {
    let Capture { inbound, outbound, rules, detail } = capture;
    if inbound.is_none() && outbound.is_none() {
        return None;
    }
    let verify = format!("portcullis intercept verify -c {config}");
    Some(match rules {
        CaptureRules::AsPlanned => Finding::passed(about, "its rules are those of its configuration".to_owned()),
        CaptureRules::Missing => Finding::failed(about, "no redirect rules are installed".to_owned())
            .why(["connections bypass the proxy, so no policy holds for them".to_owned()])
            .remedy(format!("`portcullis intercept install -c {config}` in its network namespace, with CAP_NET_ADMIN")),
        CaptureRules::Different => {
            Finding::warning(about, "its rules are not those of its configuration alone".to_owned())
                .why(detail.clone())
                .remedy(format!("if they were installed with flags, repeat them: `{verify}`; else install them again"))
        }
        CaptureRules::Unknown => match last(inbound.as_ref(), outbound.as_ref()) {
            Some((at, direction)) => {
                Finding::passed(about, format!("an {direction} connection was redirected {}", ago(at, now)))
            }
            None => Finding::unchecked(
                about,
                "nothing was redirected since it started, and it cannot read the rules".to_owned(),
            )
            .why(detail.clone())
            .remedy(format!(
                "`{verify}` in its network namespace, with CAP_NET_ADMIN; in a compose file `docker exec NAME-net /portcullis intercept verify`"
            )),
        },
    })
}

/// The last redirected connection. Rules are installed and removed for both directions at once.
fn last(inbound: Option<&CaptureListener>, outbound: Option<&CaptureListener>) -> Option<(Timestamp, &'static str)> {
    let at = |listener: Option<&CaptureListener>| listener.and_then(|listener| listener.captured_at);
    let both = [(at(inbound), "inbound"), (at(outbound), "outbound")];
    both.into_iter().filter_map(|(at, direction)| Some((at?, direction))).max()
}
