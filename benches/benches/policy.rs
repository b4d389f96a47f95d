//! Policies by their number: reading and resolving them, which a change costs once, may grow with it; looking a port up,
//! which every connection does, must not.
#![allow(clippy::unwrap_used, reason = "a bench that cannot set its scene has failed")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use portcullis_policy::{EffectivePolicy, MeshSettings, PolicySet, Scope, Source};

/// Policies are spread over files of at most so many, and over so many namespaces.
const FILE: usize = 100;
const NAMESPACES: usize = 100;

/// Each policy is for one workload of one namespace; the first is for ours.
fn document(n: usize) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p{n}, namespace: ns{}}}\nspec:\n  \
         selector: {{matchLabels: {{app: app{n}}}}}\n  mtls: {{mode: STRICT}}\n  portLevelMtls: {{8080: {{mode: DISABLE}}}}\n",
        n % NAMESPACES
    )
}

fn sources(count: usize) -> Vec<Source> {
    let numbers: Vec<usize> = (0..count).collect();
    let file = |numbers: &[usize]| Source {
        file: format!("{}.yaml", numbers.first().unwrap()),
        text: numbers.iter().map(|n| document(*n)).collect::<String>().into_bytes(),
    };
    numbers.chunks(FILE).map(file).collect()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mesh = MeshSettings::default();
    let labels = BTreeMap::from([("app".to_owned(), "app0".to_owned())]);
    for count in [1, 100, 10_000] {
        let mut group = criterion.benchmark_group(format!("policy, {count}"));
        group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
        let sources = sources(count);
        let loaded = PolicySet::load(&sources);
        assert!(loaded.errors.is_empty() && loaded.set.policies().len() == count);
        let resolve = || EffectivePolicy::resolve(&loaded.set, &mesh, "ns0", &labels);
        let effective = resolve();
        assert_eq!(effective.mode(8080).by.scope, Scope::Port);
        assert_eq!(effective.mode(80).by.scope, Scope::Workload);

        group.bench_function("look up a port", |bencher| {
            bencher.iter(|| (effective.mode(black_box(8080)).mode, effective.mode(black_box(80)).mode));
        });
        group.throughput(Throughput::Elements(count.try_into().unwrap()));
        group.bench_function("resolve", |bencher| bencher.iter(resolve));
        group.bench_function("load", |bencher| bencher.iter(|| PolicySet::load(&sources)));
        group.finish();
    }
    criterion.final_summary();
}
