//! Reads one AuthorizationPolicy document, as strictly as a PeerAuthentication.

use portcullis_yaml::{Content, Cursor, Fields, Problem, Problems, printable};

use crate::authorization::conditions::{self, Report};
use crate::authorization::http;
use crate::authorization::resource::{AuthorizationAction, AuthorizationPolicy};
use crate::authorization::rule::Rule;
use crate::metadata::{self, Metadata};
use crate::resource::ReadResource;
use crate::spec;

/// Reads one document.
pub(crate) fn read(root: &Cursor<'_>, file: &str) -> ReadResource<AuthorizationPolicy> {
    let (mut problems, mut warnings) = (Problems::new(), Problems::new());
    let Parts { metadata, spec } = read_parts(root, &mut warnings, &mut problems).unwrap_or_default();
    let identity = metadata.as_ref().map(|metadata| (metadata.namespace.clone(), metadata.name.clone()));
    let policy = match (metadata, spec) {
        (Some(metadata), Some(spec)) if problems.is_empty() => Some(AuthorizationPolicy {
            namespace: metadata.namespace,
            name: metadata.name,
            created: metadata.created,
            dry_run: metadata.dry_run,
            documentation: metadata.documentation,
            selector: spec.selector,
            action: spec.action,
            for_targets: spec.for_targets,
            rules: spec.rules,
            file: file.to_owned(),
            line: root.position().line,
            column: root.position().column,
        }),
        _ => None,
    };
    ReadResource { identity, policy, problems, warnings }
}

#[derive(Default)]
struct Parts {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

#[derive(Default)]
struct Spec {
    selector: std::collections::BTreeMap<String, String>,
    action: AuthorizationAction,
    for_targets: bool,
    rules: Vec<Rule>,
}

fn read_parts(root: &Cursor<'_>, warnings: &mut Problems, problems: &mut Problems) -> Option<Parts> {
    // Kubernetes writes `status`; it is not part of the policy.
    let fields = root.fields(&["apiVersion", "kind", "metadata", "spec", "status"], problems)?;
    let metadata = metadata::read(&fields, problems);
    let namespace = metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str());
    let spec = match fields.get("spec").filter(|at| !at.is_null()) {
        Some(at) => read_spec(&at, namespace, warnings, problems),
        None => Some(Spec::default()),
    };
    Some(Parts { metadata, spec })
}

fn read_spec(at: &Cursor<'_>, namespace: &str, warnings: &mut Problems, problems: &mut Problems) -> Option<Spec> {
    let fields = at.fields(&["selector", "targetRef", "targetRefs", "rules", "action", "provider"], problems)?;
    let action = match fields.get("action") {
        Some(at) => read_action(&at, problems),
        None => Some(AuthorizationAction::default()),
    };
    if let Some(at) = fields.get("provider") {
        let message = "a provider belongs to action CUSTOM, which is not supported; remove it";
        at.report("provider-without-custom", message, problems);
    }
    let selector = spec::read_selector(&fields, warnings, problems);
    let for_targets = read_targets(&fields, warnings, problems);
    let rules = fields.get("rules");
    let count = rules.as_ref().map_or(0, |at| at.items(&mut Problems::new()).map_or(1, |items| items.len()));
    if action == Some(AuthorizationAction::Deny) && count == 0 {
        let message = "action DENY without rules never matches; add rules, or the empty rule {} to deny everything";
        report_at(&fields, "rules", "rules-required", message, problems);
    }
    let mut read = Vec::new();
    for item in rules.and_then(|at| at.items(problems)).unwrap_or_default() {
        let mut report = Report { namespace, problems: &mut *problems, warnings: &mut *warnings, http: Vec::new() };
        let rule = read_rule(&item, &mut report);
        let http = report.http;
        http::warn(&item, &http, action.unwrap_or_default(), warnings);
        read.extend(rule);
    }
    Some(Spec { selector, action: action?, for_targets, rules: read })
}

fn read_action(at: &Cursor<'_>, problems: &mut Problems) -> Option<AuthorizationAction> {
    let text = at.string(problems)?;
    let action = AuthorizationAction::ALL.into_iter().find(|action| action.as_str() == text);
    if action.is_none() {
        let folded = text.to_ascii_uppercase();
        let hint = match AuthorizationAction::ALL.into_iter().find(|action| action.as_str() == folded) {
            Some(meant) => format!("letter case counts: write {meant}"),
            None if folded == "CUSTOM" => {
                "CUSTOM asks an external authorizer, which this proxy does not do; write ALLOW, DENY or AUDIT"
                    .to_owned()
            }
            None => "write ALLOW, DENY or AUDIT".to_owned(),
        };
        let message = format!("\"{}\" is not a supported action; {hint}", printable(text));
        at.report("unsupported-action", message, problems);
    }
    action
}

/// Whether the policy is attached to gateways or services instead of workloads.
fn read_targets(fields: &Fields<'_>, warnings: &mut Problems, problems: &mut Problems) -> bool {
    let one = fields.get("targetRef");
    let many = fields.get("targetRefs").and_then(|at| Some((at.items(problems)?, at)));
    let references = one.iter().cloned().chain(many.iter().flat_map(|(items, _)| items.clone()));
    for reference in references {
        let known = ["group", "kind", "name", "namespace", "sectionName"];
        let Some(fields) = reference.fields(&known, problems) else { continue };
        for name in ["kind", "name"] {
            fields.require(name, problems).and_then(|at| at.string(problems).map(drop));
        }
    }
    let targets: Vec<_> = one.into_iter().chain(many.map(|(_, at)| at)).collect();
    for at in &targets {
        let message = "a policy with target references is for waypoints and gateways; sidecars ignore it, so it has no \
                       effect here: use a selector instead";
        at.report("target-refs-ignored", message, warnings);
        if fields.get("selector").is_some() {
            let message = "a policy has a selector or target references, not both; remove one of them";
            at.report("selector-and-target-refs", message, problems);
        }
    }
    // An empty list attaches the policy to nothing else, so it is for workloads.
    targets.iter().any(|at| !matches!(&at.node().content, Content::Sequence(items) if items.is_empty()))
}

fn read_rule<'t>(at: &Cursor<'t>, report: &mut Report<'_, 't>) -> Option<Rule> {
    let fields = at.fields(&["from", "to", "when"], report.problems)?;
    let list = |name: &str, member: &str, report: &mut Report<'_, 't>| {
        let Some(at) = fields.get(name) else { return Vec::new() };
        let items = at.items(report.problems);
        if items.as_ref().is_some_and(Vec::is_empty) {
            let message = format!("an empty list is refused by Istio; name a {member}, or remove {name}");
            at.report("empty-list", message, report.problems);
        }
        items.unwrap_or_default()
    };
    let mut rule = Rule { line: at.position().line, ..Rule::default() };
    for item in list("from", "source", report) {
        rule.from.extend(
            read_member(&item, "source", "empty-source", report).and_then(|at| conditions::source(&at, report)),
        );
    }
    for item in list("to", "operation", report) {
        let read = read_member(&item, "operation", "empty-operation", report);
        rule.to.extend(read.and_then(|at| conditions::operation(&at, report)));
    }
    for item in fields.get("when").and_then(|at| at.items(report.problems)).unwrap_or_default() {
        rule.when.extend(conditions::when(&item, report));
    }
    conditions::check_service_accounts_of_when(at, &rule, report);
    Some(rule)
}

/// The only field of an entry of `from` or `to`.
fn read_member<'t>(
    item: &Cursor<'t>,
    member: &str,
    reason: &'static str,
    report: &mut Report<'_, 't>,
) -> Option<Cursor<'t>> {
    let fields = item.fields(&[member], report.problems)?;
    let found = fields.get(member);
    if found.is_none() {
        item.report(reason, format!("an entry needs a {member}; add one, or remove the entry"), report.problems);
    }
    found
}

/// Reports that a field is absent, at the position of its mapping.
fn report_at(fields: &Fields<'_>, name: &str, reason: &'static str, message: &str, problems: &mut Problems) {
    let at = fields.cursor();
    let field = format!("{}.{name}", at.field());
    problems.push(Problem { position: at.position(), field, reason, message: message.to_owned() });
}
