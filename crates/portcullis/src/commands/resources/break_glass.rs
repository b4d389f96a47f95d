//! `portcullis break-glass`: PERMISSIVE for a short time, which ends by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_api::Timestamp;
use portcullis_manifest::{Id, PlanError, Prune, ResourceKind, apply, delete, read};
use portcullis_policy::{BreakGlass, MAX_BREAK_GLASS_SECONDS, OWNER, REASON, UNTIL};
use portcullis_tls::Clock;
use serde::Serialize;

use super::commit::commit;
use super::effects::effects;
use super::folder::{Checked, Folder, FolderArgs, refuse};
use crate::commands::age;
use crate::commands::certs::lock;
use crate::commands::values;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Cell, List, ListArgs, Style, Table};

/// Let plaintext in for a short time where it is refused: PERMISSIVE for a namespace, a workload or a port, which ends by itself
///
/// Writes a PeerAuthentication with the annotation portcullis/until into the policy folder. The sidecars that read the folder make PERMISSIVE
/// what is STRICT there, and go back by themselves at that time, also after a restart and if this command and its terminal are gone; open plaintext connections are
/// cut then. A policy of a narrower scope stays: one of a workload is not opened by its namespace. Istio ignores the annotation: do not
/// apply such a file to a cluster.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis break-glass cart.shop:8080 --for 15m --reason 'nightly import fails, INC-42' --policies policies
  portcullis break-glass namespace/shop --for 1h --reason 'CA is down' --owner ops@example.com -c cart.yaml
  portcullis break-glass --list --policies policies
  portcullis break-glass cart.shop:8080 --end --policies policies")]
pub(crate) struct Args {
    /// What to open: namespace/NAME, [workload/]NAME.NAMESPACE, or with :PORT behind it one port of a workload
    #[arg(value_name = "TARGET", value_parser = Target::parse, required_unless_present = "list", conflicts_with = "list")]
    target: Option<Target>,
    /// For how long, such as 15m; at most 24h
    #[arg(long = "for", value_name = "DURATION", value_parser = values::timeout, required_unless_present_any = ["list", "end"])]
    duration: Option<Duration>,
    /// Why; it is in the policy and in the logs
    #[arg(long, value_name = "TEXT", value_parser = values::reason, required_unless_present_any = ["list", "end"])]
    reason: Option<String>,
    /// Who answers for it [default: $USER]
    #[arg(long, value_name = "NAME", value_parser = values::reason)]
    owner: Option<String>,
    /// Labels of the workload [default: app=NAME]
    #[arg(short, long, value_name = "k=v,k=v", value_parser = values::labels)]
    labels: Option<BTreeMap<String, String>>,
    /// End it now
    #[arg(long, conflicts_with_all = ["duration", "reason", "list"])]
    end: bool,
    /// List what is open, and what has ended and was not removed
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    folder: FolderArgs,
    #[command(flatten)]
    form: ListArgs,
}

/// What is opened.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Target {
    namespace: String,
    workload: Option<String>,
    port: Option<u16>,
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write namespace/NAME, NAME.NAMESPACE or NAME.NAMESPACE:PORT";
        if let Some(name) = text.strip_prefix("namespace/").or_else(|| text.strip_prefix("ns/")) {
            return Ok(Self { namespace: values::namespace(name)?, workload: None, port: None });
        }
        let rest = text.strip_prefix("workload/").unwrap_or(text);
        let (name, port) = match rest.split_once(':') {
            Some((name, port)) => {
                let port = port.parse::<u16>().ok().filter(|port| *port > 0);
                (name, Some(port.ok_or_else(|| format!("{text:?} has no port from 1 to 65535; {FORM}"))?))
            }
            None => (rest, None),
        };
        let (name, namespace) = name.split_once('.').ok_or_else(|| format!("{text:?} has no namespace; {FORM}"))?;
        let namespace = values::namespace(namespace)?;
        Ok(Self { namespace, workload: Some(values::namespace(name)?), port })
    }

    /// The name of the policy.
    fn name(&self) -> String {
        let parts = [self.workload.clone(), self.port.map(|port| port.to_string())];
        std::iter::once("break-glass".to_owned()).chain(parts.into_iter().flatten()).collect::<Vec<_>>().join("-")
    }

    fn id(&self) -> Id {
        Id { kind: ResourceKind::PeerAuthentication, namespace: self.namespace.clone(), name: self.name() }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Some(target) = &args.target else { return list(args) };
    let folder = args.folder.read()?;
    let _lock = lock(&folder.path)?;
    let folder = Folder { files: args.folder.read()?.files, ..folder };
    if args.end { end(&folder, target) } else { begin(args, &folder, target) }
}

fn begin(args: &Args, folder: &Folder, target: &Target) -> Outcome {
    let now = Clock::system().now_unix();
    let seconds = args.duration.map_or(0, |duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
    // Less than a second is none, and the clock of a sidecar may be behind.
    let until = Timestamp::from_unix(now.saturating_add(seconds.clamp(1, MAX_BREAK_GLASS_SECONDS)));
    let text = document(args, target, until);
    let objects = read(&text);
    let plan = apply(&folder.shown_path(), &folder.files, &objects, &Prune::No).map_err(Failure::bad_input)?;
    let Checked { set, errors, .. } = folder.check_with(&plan);
    refuse(&errors)?;
    let before = folder.check();
    commit(&plan)?;
    let id = target.id();
    output::text(&format!("{id} of {} lets plaintext in until {until}\n", id.namespace))?;
    let changes = if before.errors.is_empty() { effects(&before.set, &set, &folder.mesh) } else { Vec::new() };
    changes.iter().for_each(|line| output::note(line));
    if changes.is_empty() {
        output::note(
            "warning: nothing is opened by it: no port of the target is STRICT by a policy of its scope or a wider one (or it was open \
             already); `portcullis explain` says what decides",
        );
    }
    Ok(Exit::Ok)
}

fn document(args: &Args, target: &Target, until: Timestamp) -> String {
    // JSON's strings are YAML's.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let user = std::env::var("USER").ok().filter(|user| values::reason(user).is_ok());
    let owner = args.owner.clone().or(user).unwrap_or_else(|| "unknown".to_owned());
    let reason = args.reason.as_deref().unwrap_or_default();
    let mut text = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {}\n  namespace: {}\n  annotations:\n    \
         {UNTIL}: \"{until}\"\n    {REASON}: {}\n    {OWNER}: {}\n    portcullis/expires: \"{until}\"\nspec:\n",
        target.name(),
        target.namespace,
        quoted(reason),
        quoted(&owner)
    );
    if let Some(workload) = &target.workload {
        let labels = args.labels.clone().unwrap_or_else(|| BTreeMap::from([("app".to_owned(), workload.clone())]));
        text.push_str("  selector:\n    matchLabels:\n");
        for (key, value) in labels {
            text.push_str(&format!("      {}: {}\n", quoted(&key), quoted(&value)));
        }
    }
    text.push_str(&match target.port {
        Some(port) => format!("  portLevelMtls:\n    {port}:\n      mode: PERMISSIVE\n"),
        None => "  mtls:\n    mode: PERMISSIVE\n".to_owned(),
    });
    text
}

fn end(folder: &Folder, target: &Target) -> Outcome {
    let id = target.id();
    let plan = match delete(&folder.shown_path(), &folder.files, std::slice::from_ref(&id)) {
        Ok(plan) => plan,
        Err(PlanError::NotFound(_)) => {
            let message = format!("{id} of {} is not there; see `portcullis break-glass --list`", id.namespace);
            return Err(Failure::message(Exit::Failure, message));
        }
        Err(error) => return Err(Failure::bad_input(error)),
    };
    let Checked { set, errors, .. } = folder.check_with(&plan);
    refuse(&errors)?;
    let before = folder.check();
    commit(&plan)?;
    output::text(&format!("{id} of {} ended\n", id.namespace))?;
    effects(&before.set, &set, &folder.mesh).iter().for_each(|line| output::note(line));
    Ok(Exit::Ok)
}

/// One document, as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    namespace: String,
    name: String,
    target: String,
    is_active: bool,
    until: String,
    seconds_left: i64,
    owner: Option<String>,
    reason: String,
    file: String,
    line: u32,
}

fn list(args: &Args) -> Outcome {
    let folder = args.folder.read()?;
    let Checked { set, errors, .. } = folder.check();
    errors.iter().for_each(|error| output::note(&format!("error: {error}")));
    let now = Clock::system().now_unix();
    let mut items: Vec<Item> = set.break_glass().iter().map(|it| item(it, now)).collect();
    items.sort_by(|one, other| {
        (&one.until, &one.namespace, &one.name).cmp(&(&other.until, &other.namespace, &other.name))
    });
    let list = List { kind: "BreakGlassList", items: &items, unanswered: &[] };
    let table = || args.form.table(&table(&items, args.form.is_wide()));
    args.form.print(&list, table, |item| format!("peerauthentication.security.istio.io/{}", item.name))?;
    if items.is_empty() {
        output::note("nothing is open");
    }
    Ok(if errors.is_empty() { Exit::Ok } else { Exit::BadInput })
}

fn item(it: &BreakGlass, now: i64) -> Item {
    let BreakGlass { policy, until, reason, .. } = it;
    let labels: Vec<String> = policy.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let ports: Vec<String> = policy.ports.keys().map(ToString::to_string).collect();
    let target = match (labels.is_empty(), ports.is_empty()) {
        (true, _) => format!("namespace {}", policy.namespace),
        (false, true) => labels.join(","),
        (false, false) => format!("{} ports {}", labels.join(","), ports.join(",")),
    };
    Item {
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        target,
        is_active: it.is_active(now),
        until: it.until_text(),
        seconds_left: until.saturating_sub(now).max(0),
        owner: policy.documentation.owner.clone(),
        reason: reason.clone(),
        file: policy.file.clone(),
        line: policy.line,
    }
}

fn table(items: &[Item], wide: bool) -> Table {
    let mut table = Table::new(["NAMESPACE", "NAME", "TARGET", "LEFT", "OWNER", "REASON"]);
    if wide {
        table = table.extend(["UNTIL", "FILE:LINE"]);
    }
    for it in items {
        #[allow(clippy::cast_precision_loss, reason = "a day at most")]
        let left = match it.is_active {
            true => Cell::styled(age::short(it.seconds_left as f64), Style::Warn),
            false => "ended".into(),
        };
        table.push([
            it.namespace.as_str().into(),
            it.name.as_str().into(),
            it.target.as_str().into(),
            left,
            it.owner.as_deref().unwrap_or("-").into(),
            it.reason.as_str().into(),
            it.until.as_str().into(),
            format!("{}:{}", it.file, it.line).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_namespace_a_workload_or_a_port() {
        let target = |text: &str| Target::parse(text).map(|it| it.name());
        assert_eq!(target("namespace/shop").unwrap(), "break-glass");
        assert_eq!(target("cart.shop").unwrap(), "break-glass-cart");
        assert_eq!(target("workload/cart.shop:8080").unwrap(), "break-glass-cart-8080");
        for wrong in
            ["", "shop", "namespace/", "cart.", ".shop", "cart.shop:0", "cart.shop:x", "Cart.shop", "cart.shop/8080"]
        {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
