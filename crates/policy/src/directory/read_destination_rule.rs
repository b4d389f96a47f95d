//! Reads a DestinationRule.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use portcullis_yaml::{Cursor, Fields, Problems, printable};

use crate::directory::destination_rule::{
    DestinationRule, LoadBalancer, OutlierDetection, SubsetSpec, TrafficPolicy, TrafficSettings,
};
use crate::directory::export::{self, ExportRules, ExportTo};
use crate::directory::host::HostPattern;
use crate::directory::read::{self, DUPLICATE_VALUE, Report};
use crate::directory::read_tls;
use crate::metadata::is_dns_label;
use crate::resource::ReadResource;
use crate::spec;

const NO_HTTP: &str = "connections are carried as bytes, and their number is limited by the proxy's own limits";

/// Fields of `trafficPolicy` and `portLevelSettings` that have no meaning here.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("connectionPool", NO_HTTP),
    ("tunnel", "connections are not tunnelled; remove it"),
    ("proxyProtocol", "no PROXY header is sent to endpoints; remove it"),
    ("retryBudget", "requests are not retried; remove it"),
];

const UNSUPPORTED_BALANCING: &[(&str, &str)] = &[
    ("consistentHash", "write simple: LEAST_REQUEST, RANDOM or ROUND_ROBIN"),
    ("localityLbSetting", "the nearest endpoints are preferred always; remove it"),
    ("warmup", "new endpoints get connections at once; remove it"),
    ("warmupDurationSecs", "new endpoints get connections at once; remove it"),
];

const UNSUPPORTED_OUTLIER: &[(&str, &str)] = &[
    ("splitExternalLocalOriginErrors", "every failure here is one of a connection; remove it"),
    ("consecutiveErrors", "write consecutive5xxErrors"),
    ("minHealthPercent", "write maxEjectionPercent"),
];

/// The counters of outlier detection. Each of them counts failed connections, which are the only failures that are seen.
const COUNTERS: [&str; 3] = ["consecutiveLocalOriginFailures", "consecutiveGatewayErrors", "consecutive5xxErrors"];

const BALANCERS: &[(&str, LoadBalancer)] = &[
    ("LEAST_REQUEST", LoadBalancer::LeastRequest),
    ("RANDOM", LoadBalancer::Random),
    ("ROUND_ROBIN", LoadBalancer::RoundRobin),
    ("LEAST_CONN", LoadBalancer::LeastRequest),
    ("UNSPECIFIED", LoadBalancer::LeastRequest),
];

/// The fields of `spec`.
struct Spec {
    host: HostPattern,
    traffic_policy: TrafficPolicy,
    subsets: BTreeMap<Arc<str>, SubsetSpec>,
    export_to: ExportTo,
    workload_selector: BTreeMap<String, String>,
}

/// Reads one document.
pub(crate) fn read(root: &Cursor<'_>, file: &str) -> ReadResource<DestinationRule> {
    let read_spec = |at: &Cursor<'_>, _: &Fields<'_>, namespace: &str, report: &mut Report| {
        read_spec(at, namespace, &mut report.problems, &mut report.warnings)
    };
    read::document(root, file, read_spec, |meta, spec| {
        let Spec { host, traffic_policy, subsets, export_to, workload_selector } = spec;
        DestinationRule { meta, host, traffic_policy, subsets, export_to, workload_selector }
    })
}

fn read_spec(at: &Cursor<'_>, namespace: &str, problems: &mut Problems, warnings: &mut Problems) -> Option<Spec> {
    let known = ["host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"];
    let fields = at.fields(&known, problems)?;
    let host = fields.require("host", problems).and_then(|at| {
        let text = read::text(&at, problems)?;
        let host = HostPattern::parse(text, namespace);
        if host.is_none() {
            let message =
                format!("\"{}\" is not the name of a host, nor \"*\" or *. with a name behind it", printable(text));
            at.report("invalid-host", message, problems);
        }
        host
    });
    let traffic_policy = read_traffic_policy(&fields, problems, warnings);
    let subsets = read_subsets(&fields, problems, warnings);
    let workload_selector = read_selector(&fields, problems);
    let rules = if workload_selector.is_some() { ExportRules::OwnNamespace } else { ExportRules::DestinationRule };
    let export_to = export::read(&fields, namespace, rules, problems);
    if traffic_policy.is_empty() && subsets.is_empty() {
        let message = "the rule says nothing: it has neither a trafficPolicy nor subsets";
        at.report("empty-rule", message, warnings);
    }
    let workload_selector = workload_selector.unwrap_or_default();
    Some(Spec { host: host?, traffic_policy, subsets, export_to, workload_selector })
}

fn read_selector(fields: &Fields<'_>, problems: &mut Problems) -> Option<BTreeMap<String, String>> {
    let at = fields.get("workloadSelector")?;
    let labels = at.fields(&["matchLabels"], problems)?.get("matchLabels");
    let labels = labels.map_or_else(|| Some(BTreeMap::new()), |at| spec::read_label_map(&at, problems))?;
    if labels.is_empty() {
        let message = "selects by no label; remove it, or name labels under matchLabels";
        at.report("selector-without-labels", message, problems);
    }
    Some(labels)
}

fn read_subsets(
    fields: &Fields<'_>,
    problems: &mut Problems,
    warnings: &mut Problems,
) -> BTreeMap<Arc<str>, SubsetSpec> {
    let mut subsets = BTreeMap::new();
    let items = fields.get("subsets").and_then(|at| at.items(problems)).unwrap_or_default();
    for at in items {
        let Some(fields) = at.fields(&["name", "labels", "trafficPolicy"], problems) else { continue };
        let name = fields.require("name", problems).and_then(|at| Some((at.string(problems)?, at)));
        if let Some((text, at)) = &name
            && !is_dns_label(text)
        {
            let message =
                format!("\"{}\" is not the name of a subset; use lower-case letters, digits and '-'", printable(text));
            at.report("invalid-subset-name", message, problems);
        }
        let labels = fields.get("labels").map(|at| read::labels(&at, problems)).unwrap_or_default();
        let traffic_policy = read_traffic_policy(&fields, problems, warnings);
        let Some((text, at)) = name else { continue };
        if subsets.insert(Arc::from(text), SubsetSpec { labels, traffic_policy }).is_some() {
            let message = format!("subset \"{}\" is in this list already; rename one", printable(text));
            at.report(DUPLICATE_VALUE, message, problems);
        }
    }
    subsets
}

fn read_traffic_policy(parent: &Fields<'_>, problems: &mut Problems, warnings: &mut Problems) -> TrafficPolicy {
    let mut policy = TrafficPolicy::default();
    let Some(at) = parent.get("trafficPolicy") else { return policy };
    let known = ["tls", "loadBalancer", "outlierDetection", "portLevelSettings"];
    let Some(fields) = read::fields(&at, &known, UNSUPPORTED, problems) else { return policy };
    policy.settings = read_settings(&fields, problems, warnings);
    let items = fields.get("portLevelSettings").and_then(|at| at.items(problems)).unwrap_or_default();
    for item in items {
        let known = ["port", "tls", "loadBalancer", "outlierDetection"];
        let Some(fields) = read::fields(&item, &known, UNSUPPORTED, problems) else { continue };
        let settings = read_settings(&fields, problems, warnings);
        let port = fields.require("port", problems).and_then(|at| at.fields(&["number"], problems));
        let number = port.and_then(|fields| fields.require("number", problems));
        let number = number.and_then(|at| read::port(&at, problems));
        if let Some(number) = number
            && policy.ports.insert(number, settings).is_some()
        {
            let message = format!("port {number} is in this list already; put both into one");
            item.report("duplicate-port", message, problems);
        }
    }
    policy
}

fn read_settings(fields: &Fields<'_>, problems: &mut Problems, warnings: &mut Problems) -> TrafficSettings {
    TrafficSettings {
        tls: fields.get("tls").and_then(|at| read_tls::read(&at, problems, warnings)).map(Arc::new),
        load_balancer: fields.get("loadBalancer").and_then(|at| read_load_balancer(&at, problems)),
        outlier_detection: fields.get("outlierDetection").and_then(|at| read_outlier_detection(&at, problems)),
    }
}

fn read_load_balancer(at: &Cursor<'_>, problems: &mut Problems) -> Option<LoadBalancer> {
    let fields = read::fields(at, &["simple"], UNSUPPORTED_BALANCING, problems)?;
    let at = fields.get("simple")?;
    read::choice(&at, "load balancer", BALANCERS, "unsupported-load-balancer", problems)
}

fn read_outlier_detection(at: &Cursor<'_>, problems: &mut Problems) -> Option<OutlierDetection> {
    let times = ["interval", "baseEjectionTime", "maxEjectionPercent"];
    let known: Vec<&str> = COUNTERS.into_iter().chain(times).collect();
    let fields = read::fields(at, &known, UNSUPPORTED_OUTLIER, problems)?;
    let counters: Vec<_> = COUNTERS.into_iter().filter_map(|name| fields.get(name)).collect();
    let numbers = counters.iter().filter_map(|at| read::number(at, u32::MAX, problems));
    // 0 switches a counter off, as in Istio.
    let smallest = numbers.filter_map(NonZeroU32::new).min();
    let default = counters.is_empty().then_some(OutlierDetection::DEFAULT_FAILURES);
    let percent = fields.get("maxEjectionPercent").and_then(|at| read::number(&at, 100, problems));
    let mut time = |name: &str| fields.get(name).and_then(|at| read::duration(&at, problems));
    Some(OutlierDetection {
        consecutive_failures: smallest.or(default),
        interval: time("interval").unwrap_or(OutlierDetection::DEFAULT_INTERVAL),
        base_ejection_time: time("baseEjectionTime").unwrap_or(OutlierDetection::DEFAULT_BASE_EJECTION_TIME),
        max_ejection_percent: percent
            .and_then(|percent| u8::try_from(percent).ok())
            .unwrap_or(OutlierDetection::DEFAULT_MAX_EJECTION_PERCENT),
    })
}
