//! The policies of one workload, prepared for decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::authorization::facts::Facts;
use crate::authorization::http;
use crate::authorization::index::{Index, RuleNumber};
use crate::authorization::resource::{AuthorizationAction, AuthorizationPolicy};
use crate::authorization::rule::{Condition, Rule};
use crate::authorization::trust_domains;
use crate::evaluation::Evaluation;
use crate::set::PolicySet;
use crate::workload::MeshSettings;

/// The reason of a connection that a DENY rule refuses, in commands, logs and metrics.
pub const DENIED: &str = "authorization_denied";

/// The reason of a connection that no ALLOW rule matches.
pub const NOT_ALLOWED: &str = "authorization_not_allowed";

/// Decides whether a connection is authorized: DENY before ALLOW, and where an ALLOW policy applies, one must match.
///
/// The answer is the same in whatever order the policies were read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Authorizer {
    deny: RuleSet,
    allow: RuleSet,
    audit: RuleSet,
    reads_sni: bool,
}

/// Whether a connection is authorized, and by what.
#[derive(Clone, Copy, Debug)]
pub enum Authorization<'p> {
    /// No ALLOW policy applies, and no DENY rule matches.
    Unrestricted,
    /// A rule of an ALLOW policy matches.
    Allowed(MatchedRule<'p>),
    /// A rule of a DENY policy matches.
    Denied(MatchedRule<'p>),
    /// ALLOW policies apply, and none matches.
    NotAllowed(&'p [Arc<AuthorizationPolicy>]),
}

/// A rule that matched.
#[derive(Clone, Copy, Debug)]
pub struct MatchedRule<'p> {
    /// Its policy.
    pub policy: &'p AuthorizationPolicy,
    /// [`AuthorizationPolicy::label`], made once.
    pub label: &'p Arc<str>,
    /// Its index in `spec.rules`, from 0.
    pub rule: usize,
    /// The line on which it begins.
    pub line: u32,
}

impl Authorization<'_> {
    /// Whether the connection is let through.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Unrestricted | Self::Allowed(_))
    }

    /// Why, as a stable word.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unrestricted => "no_allow_policy",
            Self::Allowed(_) => "allow_rule",
            Self::Denied(_) => DENIED,
            Self::NotAllowed(_) => NOT_ALLOWED,
        }
    }
}

/// All policies of one action.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct RuleSet {
    /// By namespace and name.
    policies: Vec<Arc<AuthorizationPolicy>>,
    /// In the order of the policies and of the rules in them.
    rules: Vec<CompiledRule>,
    index: Index,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct CompiledRule {
    policy: Arc<AuthorizationPolicy>,
    label: Arc<str>,
    index: usize,
    rule: Rule,
}

impl CompiledRule {
    fn matched(&self) -> MatchedRule<'_> {
        MatchedRule { policy: &self.policy, label: &self.label, rule: self.index, line: self.rule.line }
    }
}

impl RuleSet {
    fn new(mut policies: Vec<Arc<AuthorizationPolicy>>, mesh: &MeshSettings) -> Self {
        policies.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        let mut rules = Vec::new();
        for policy in &policies {
            let label: Arc<str> = policy.label().into();
            let of_policy = policy.rules.iter().enumerate().filter_map(|(index, rule)| {
                let rule = trust_domains::expand(http::without_http(rule, policy.action)?, &mesh.trust_domains);
                Some(CompiledRule { policy: Arc::clone(policy), label: Arc::clone(&label), index, rule })
            });
            rules.extend(of_policy);
        }
        let index = Index::new(rules.iter().map(|compiled| &compiled.rule));
        Self { policies, rules, index }
    }

    fn first_match(&self, facts: &Facts<'_>) -> Option<MatchedRule<'_>> {
        if self.rules.is_empty() {
            return None;
        }
        let mut first: Option<RuleNumber> = None;
        self.index.visit(facts, |numbers| {
            let earlier = numbers.iter().copied().take_while(|number| first.is_none_or(|first| *number < first));
            let found = earlier.into_iter().find(|number| self.get(*number).is_some_and(|it| it.rule.matches(facts)));
            first = found.or(first);
        });
        Some(self.get(first?)?.matched())
    }

    fn all(&self) -> impl Iterator<Item = (MatchedRule<'_>, &Rule)> {
        self.rules.iter().map(|compiled| (compiled.matched(), &compiled.rule))
    }

    fn reads_sni(&self) -> bool {
        let mut conditions = self.rules.iter().flat_map(|compiled| compiled.rule.conditions());
        conditions.any(|condition| matches!(condition, Condition::Sni(_)))
    }

    fn get(&self, number: RuleNumber) -> Option<&CompiledRule> {
        self.rules.get(usize::try_from(number).ok()?)
    }
}

impl Authorizer {
    /// Selects the policies of a workload, and prepares them.
    #[must_use]
    pub fn new(
        set: &PolicySet,
        mesh: &MeshSettings,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        evaluation: Evaluation,
    ) -> Self {
        let of = |action: AuthorizationAction| {
            let selected = set.authorization_policies().iter().filter(|policy| {
                policy.action == action
                    && evaluation.includes(policy.dry_run)
                    && policy.applies_to(&mesh.root_namespace, namespace, labels)
            });
            RuleSet::new(selected.cloned().collect(), mesh)
        };
        let (deny, allow) = (of(AuthorizationAction::Deny), of(AuthorizationAction::Allow));
        let reads_sni = [&deny, &allow].into_iter().any(RuleSet::reads_sni);
        Self { deny, allow, audit: of(AuthorizationAction::Audit), reads_sni }
    }

    /// Decides. Costs nothing where no policy applies, and does not allocate.
    #[must_use]
    pub fn authorize(&self, facts: &Facts<'_>) -> Authorization<'_> {
        if let Some(denied) = self.deny.first_match(facts) {
            return Authorization::Denied(denied);
        }
        if self.allow.policies.is_empty() {
            return Authorization::Unrestricted;
        }
        self.allow.first_match(facts).map_or(Authorization::NotAllowed(&self.allow.policies), Authorization::Allowed)
    }

    /// The first AUDIT rule that matches.
    #[must_use]
    pub fn audit(&self, facts: &Facts<'_>) -> Option<MatchedRule<'_>> {
        self.audit.first_match(facts)
    }

    /// The policies that apply, in the order of evaluation.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        [&self.deny, &self.allow, &self.audit].into_iter().flat_map(|set| &set.policies)
    }

    /// The ports that rules name.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let rules = [&self.deny, &self.allow, &self.audit].into_iter().flat_map(|set| &set.rules);
        let conditions = rules.flat_map(|compiled| compiled.rule.conditions());
        conditions.flat_map(|condition| match condition {
            Condition::Port(values) => values.values().iter().chain(values.not_values()).copied().collect(),
            _ => Vec::new(),
        })
    }

    /// Whether a rule that decides compares the server name.
    #[must_use]
    pub const fn reads_sni(&self) -> bool {
        self.reads_sni
    }

    /// The DENY rules, in the order of evaluation.
    pub(super) fn denying(&self) -> impl Iterator<Item = (MatchedRule<'_>, &Rule)> {
        self.deny.all()
    }

    /// The ALLOW rules, in the order of evaluation.
    pub(super) fn allowing(&self) -> impl Iterator<Item = (MatchedRule<'_>, &Rule)> {
        self.allow.all()
    }

    /// The ALLOW policies; where there is one, one must match.
    pub(super) fn allow_policies(&self) -> &[Arc<AuthorizationPolicy>] {
        &self.allow.policies
    }

    /// The rules of one action as they are evaluated: trust domains expanded, fields of HTTP resolved.
    pub(crate) fn rules(&self, action: AuthorizationAction) -> impl Iterator<Item = &Rule> {
        let set = match action {
            AuthorizationAction::Deny => &self.deny,
            AuthorizationAction::Allow => &self.allow,
            AuthorizationAction::Audit => &self.audit,
        };
        set.rules.iter().map(|compiled| &compiled.rule)
    }

    /// Whether an ALLOW policy applies, so that one must match.
    pub(crate) const fn restricts(&self) -> bool {
        !self.allow.policies.is_empty()
    }

    /// Whether any policy can decide about a connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deny.rules.is_empty() && self.allow.policies.is_empty() && self.audit.rules.is_empty()
    }
}
