//! `portcullis proxy-config secret`: the certificate of a workload and the roots that it trusts.

use portcullis_api::{Certificate, Certs, ConfigDump, ProxyInfo, Timestamp, TlsCompat};
use portcullis_identity::details;
use portcullis_tls::{Clock, certificates};
use serde::Serialize;

use super::blocks::{Block, blocks, sort};
use crate::commands::age;
use crate::commands::chain::verify;
use crate::commands::proxies::{ProxiesArgs, proxy_info};
use crate::commands::selection::{SelectionArgs, title};
use crate::exit::{Exit, Outcome};
use crate::output::{self, Cell, List, ListArgs, Style, Table};

/// Show the certificate of a workload and the roots that it trusts
///
/// VALID CERT: within its time by the clock of this host, and for the own certificate also that its chain leads to a root of its own trust
/// domain, as peers verify it. Why not is told on standard error.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis proxy-config secret cart.shop
  portcullis pc s -o wide
  portcullis pc s cart.shop -o json")]
pub(super) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// One certificate, with the keys of istioctl.
#[derive(Clone, Debug, Serialize)]
struct Item {
    resource_name: String,
    /// PEM.
    cert: String,
    source: &'static str,
    destination: String,
    state: &'static str,
    trust_domain: String,
    cert_valid: bool,
    serial_number: String,
    not_after: String,
    not_before: String,
    #[serde(rename = "type")]
    kind: &'static str,
    spiffe_id: Option<String>,
    issuer: String,
    key: Option<String>,
    renews_at: Option<Timestamp>,
    /// Why it is not valid.
    problem: Option<String>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let answers = args.proxies.ask(|sidecar| async move {
        let (proxy, certs) = (proxy_info(&sidecar).await?, sidecar.get::<Certs>("/certs").await?);
        Ok((proxy, certs, sidecar.get::<ConfigDump>("/config_dump").await?.tls.compat))
    })?;
    let meant = args.selection.select(answers.answers, |answer| &answer.value.0)?;
    let now = Clock::system().now_unix();
    let mut found: Vec<Block<Item>> = Vec::new();
    for (proxy, certs, compat) in meant.into_iter().map(|answer| answer.value) {
        let items = items(&proxy, &certs, compat, now);
        found.push(Block { proxy, items });
    }
    sort(&mut found);
    let items: Vec<Item> = found.iter().flat_map(|block| block.items.iter().cloned()).collect();
    let list = List { kind: "SecretList", items: &items, unanswered: &answers.unanswered };
    let shown = || {
        blocks(&found, |items| match items {
            [] => "No secret items to show.\n".to_owned(),
            items => args.list.table(&table(items, args.list.is_wide(), now)),
        })
    };
    args.list.print(&list, shown, |item| format!("secret/{}/{}", item.destination, item.resource_name))?;
    for item in &items {
        if let Some(problem) = &item.problem {
            output::note(&format!("warning: {} of {}: {problem}", item.resource_name, item.destination));
        }
    }
    Ok(Exit::Ok)
}

fn items(proxy: &ProxyInfo, certs: &Certs, compat: TlsCompat, now: i64) -> Vec<Item> {
    let mut items = Vec::new();
    for own in &certs.certificates {
        let Some(leaf) = own.cert_chain.first() else { continue };
        let problem = out_of_time(leaf, now).or_else(|| verify(proxy, certs, own, compat, now).err());
        let mut item = item(proxy, leaf, "default", "Cert Chain", problem);
        if let Some(problem) = own.state.strip_prefix("Unavailable: ") {
            (item.state, item.problem) = ("WARMING", item.problem.or_else(|| Some(problem.to_owned())));
            item.cert_valid = false;
        }
        (item.spiffe_id, item.renews_at) = (Some(own.identity.clone()), own.renews_at);
        items.push(item);
    }
    for bundle in &certs.trust_bundles {
        for root in &bundle.root_certs {
            let mut item = item(proxy, root, "ROOTCA", "CA", out_of_time(root, now));
            item.trust_domain.clone_from(&bundle.trust_domain);
            items.push(item);
        }
    }
    items
}

fn item(proxy: &ProxyInfo, certificate: &Certificate, name: &str, kind: &'static str, problem: Option<String>) -> Item {
    let time = |time: Option<Timestamp>| time.map_or_else(|| "NA".to_owned(), |time| time.to_string());
    Item {
        resource_name: name.to_owned(),
        cert: certificate.pem.clone(),
        source: "/certs",
        destination: title(proxy),
        state: "ACTIVE",
        trust_domain: proxy.trust_domain.clone(),
        cert_valid: problem.is_none(),
        serial_number: format!("{:0>32}", certificate.serial_number_hex),
        not_after: time(certificate.expiration_time),
        not_before: time(certificate.valid_from),
        kind,
        spiffe_id: None,
        issuer: certificate.issuer.clone(),
        key: key(certificate),
        renews_at: None,
        problem,
    }
}

/// `ecdsa-p256`, `rsa-2048`.
fn key(certificate: &Certificate) -> Option<String> {
    let der = certificates(certificate.pem.as_bytes()).ok()?.into_iter().next()?;
    details(&der).ok().map(|details| details.key)
}

fn out_of_time(certificate: &Certificate, now: i64) -> Option<String> {
    let (Some(from), Some(until)) = (certificate.valid_from, certificate.expiration_time) else {
        return Some("the proxy does not say when it is valid".to_owned());
    };
    if now > until.unix() {
        return Some(format!("it was valid until {until}"));
    }
    (now < from.unix()).then(|| format!("it is valid from {from}; check the clocks"))
}

fn table(items: &[Item], wide: bool, now: i64) -> Table {
    let mut table =
        Table::new(["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"]);
    // As istioctl: only if every line has one. Of a single trust domain nobody has to be told.
    let domains = items.iter().all(|item| !item.trust_domain.is_empty())
        && items.iter().any(|item| item.trust_domain != items.first().map_or("", |first| first.trust_domain.as_str()));
    if domains {
        table = table.extend(["TRUST DOMAIN"]);
    }
    if wide {
        table = table.extend(["SPIFFE ID", "ISSUER", "KEY", "RENEWS IN"]);
    }
    for item in items {
        let style = if item.cert_valid { Style::Good } else { Style::Bad };
        let cells = [
            item.resource_name.as_str().into(),
            item.kind.into(),
            item.state.into(),
            Cell::styled(item.cert_valid.to_string(), style),
            item.serial_number.as_str().into(),
            item.not_after.as_str().into(),
            item.not_before.as_str().into(),
        ];
        #[allow(clippy::cast_precision_loss, reason = "a lifetime is far below 2^53 seconds")]
        let left = |at: Timestamp| age::short(at.unix().saturating_sub(now) as f64);
        let more = [
            item.spiffe_id.as_deref().unwrap_or("-").into(),
            item.issuer.as_str().into(),
            item.key.as_deref().unwrap_or("-").into(),
            item.renews_at.map_or_else(|| "-".to_owned(), left).into(),
        ];
        let domain = domains.then(|| Cell::from(item.trust_domain.as_str()));
        table.push(cells.into_iter().chain(domain).chain(more));
    }
    table
}
