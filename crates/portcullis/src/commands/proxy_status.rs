//! `portcullis proxy-status`: every proxy in one line, and whether all have the same policies.

use portcullis_api::{Certs, Policies, ProxyInfo, Timestamp};
use portcullis_report::check::most_common_hash;
use serde::Serialize;

use super::age;
use super::proxies::{ProxiesArgs, proxy_info};
use super::selection::SelectionArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Cell, List, ListArgs, MissingAnswer, Style, Table};

/// Show every proxy: whether all have the same policies, how long its certificate is valid, its version
///
/// SYNCED compares the content of the policy folders over all proxies that answer: SYNCED as most have it, DIFFERS otherwise, STALE if
/// newer files have a mistake and an older set is in force.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis proxy-status
  portcullis proxy-status --admin cart:15000 --admin unix:/run/web/admin.sock
  portcullis proxy-status --proxies proxies.yaml -n shop
  portcullis proxy-status --docker -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// How the policies of a proxy compare with those of the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Sync {
    /// As most proxies have them.
    Synced,
    /// Not as most have them.
    Differs,
    /// Newer files have a mistake.
    Stale,
    /// It has no policy folder.
    None,
}

/// One proxy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    name: String,
    namespace: String,
    address: String,
    policy_hash: Option<String>,
    policy_generation: Option<u64>,
    synced: Sync,
    /// Why newer files are not in force.
    policy_problem: Option<String>,
    identity: String,
    certificate_not_after: Option<Timestamp>,
    /// Below 0: since when it has expired.
    certificate_seconds_left: Option<i64>,
    state: String,
    version: String,
    started_at: Timestamp,
}

/// What one proxy answers.
struct Status {
    proxy: ProxyInfo,
    policies: Policies,
    not_after: Option<Timestamp>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let answers = args.proxies.find()?.rows(|sidecar| async move {
        let proxy = proxy_info(&sidecar).await?;
        let policies = sidecar.get::<Policies>("/policies").await?;
        let certs = sidecar.get::<Certs>("/certs").await?;
        let leaf = certs.certificates.first().and_then(|own| own.cert_chain.first());
        Ok(Status { proxy, policies, not_after: leaf.and_then(|leaf| leaf.expiration_time) })
    });
    let (asked, unanswered) = (answers.answers.len(), answers.unanswered);
    // Over all proxies, also where only some are shown.
    let reference = most_common_hash(answers.answers.iter().map(|answer| &answer.value.policies));
    let shown: Vec<_> =
        if asked == 0 { Vec::new() } else { args.selection.select(answers.answers, |answer| &answer.value.proxy)? };
    let mut items: Vec<Item> =
        shown.into_iter().map(|one| item(one.value, one.target.address.to_string(), reference.as_deref())).collect();
    items.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    let list = List { kind: "ProxyStatusList", items: &items, unanswered: &unanswered };
    let table = || args.list.table(&table(&items, &unanswered, args.list.is_wide()));
    args.list.print(&list, table, |item| format!("proxy/{}.{}", item.name, item.namespace))?;
    for MissingAnswer { address, message, .. } in &unanswered {
        output::note(&format!("warning: {address}: {message}"));
    }
    if asked == 0 {
        return Err(Failure::message(
            Exit::Unreachable,
            "no proxy answers; name one with --admin ADDRESS, or see --help for lists",
        ));
    }
    Ok(Exit::Ok)
}

fn item(status: Status, address: String, reference: Option<&str>) -> Item {
    let Status { proxy, policies, not_after } = status;
    let synced = match &policies.hash {
        _ if policies.problem.is_some() => Sync::Stale,
        None => Sync::None,
        hash if hash.as_deref() == reference => Sync::Synced,
        Some(_) => Sync::Differs,
    };
    Item {
        name: proxy.name,
        namespace: proxy.namespace,
        address,
        policy_hash: policies.hash,
        policy_generation: policies.generation,
        synced,
        policy_problem: policies.problem.map(|problem| problem.message),
        identity: proxy.identity,
        certificate_not_after: not_after,
        // By the clock of the proxy, whose opinion of its certificate it is.
        certificate_seconds_left: not_after.map(|end| end.unix().saturating_sub(proxy.now.unix())),
        state: proxy.state,
        version: proxy.version,
        started_at: proxy.started_at,
    }
}

/// A certificate of a day that was not renewed at its half has less than this.
const SOON: i64 = 6 * 3_600;

fn table(items: &[Item], unanswered: &[MissingAnswer], wide: bool) -> Table {
    let mut table = Table::new(["NAME", "NAMESPACE", "POLICY HASH", "SYNCED", "CERT", "VERSION"]);
    if wide {
        table = table.extend(["STATE", "ADDRESS", "IDENTITY", "GENERATION", "PROBLEM"]);
    }
    for item in items {
        let (word, style) = match item.synced {
            Sync::Synced => ("SYNCED", Style::Good),
            Sync::Differs => ("DIFFERS", Style::Bad),
            Sync::Stale => ("STALE", Style::Bad),
            Sync::None => ("-", Style::Plain),
        };
        let certificate = match item.certificate_seconds_left {
            None => Cell::styled("NONE", Style::Warn),
            Some(left) if left < 0 => Cell::styled("EXPIRED", Style::Bad),
            #[allow(clippy::cast_precision_loss, reason = "a lifetime is far below 2^53 seconds")]
            Some(left) => Cell::styled(age::short(left as f64), if left < SOON { Style::Warn } else { Style::Good }),
        };
        let problem = item.policy_problem.as_deref().and_then(|problem| problem.lines().next());
        table.push([
            item.name.as_str().into(),
            item.namespace.as_str().into(),
            item.policy_hash.as_deref().map_or("-", short_hash).into(),
            Cell::styled(word, style),
            certificate,
            item.version.as_str().into(),
            item.state.as_str().into(),
            item.address.as_str().into(),
            item.identity.as_str().into(),
            item.policy_generation.map_or_else(|| "-".to_owned(), |generation| generation.to_string()).into(),
            problem.unwrap_or("-").into(),
        ]);
    }
    for MissingAnswer { address, name, reason, .. } in unanswered {
        let name = name.as_deref().unwrap_or(address);
        let state = Cell::styled(reason.to_uppercase(), Style::Bad);
        let cells = [name.into(), "-".into(), "-".into(), state, "-".into(), "-".into()];
        table.push(cells.into_iter().chain(["-".into(), address.as_str().into(), "-".into(), "-".into(), "-".into()]));
    }
    table
}

/// As git shortens.
fn short_hash(hash: &str) -> &str {
    hash.char_indices().nth(12).and_then(|(end, _)| hash.get(..end)).unwrap_or(hash)
}
