//! `portcullis why`: from a refused connection to its reason, the policy with its line, and what to do.

mod find;
mod report;

use std::net::IpAddr;

use portcullis_api::{Explanation, Recent};
use portcullis_discovery::SidecarTarget;

use self::find::{SeenConn, Which};
use self::report::{Policy, Report};
use super::proxies::{Answer, Mesh, ProxiesArgs};
use super::selection::Name;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, ListArgs, OutputFormat};

/// Explain why a connection was refused: the reason, the policy with file and line, and what to do, as both sides saw it
///
/// Without an argument it is about the last refusal of all proxies that are asked. Name the proxies of both sides to see both: the one of the
/// server knows the policy, the one of the client may know more about the handshake.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis why
  portcullis why 10.0.0.9 --proxies proxies.yaml
  portcullis why 4711 --workload cart.shop
  portcullis why last --docker -o json")]
pub(crate) struct Args {
    /// The number of the connection in logs (conn_id), an address of either side (IP or IP:PORT), or `last`
    #[arg(value_name = "CONN_ID|ADDRESS|last", default_value = "last", value_parser = Which::parse)]
    which: Which,
    /// Only connections that the proxy of this workload tells of: NAME[.NAMESPACE]
    #[arg(short, long, value_name = "NAME", value_parser = Name::parse)]
    workload: Option<Name>,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mesh = args.proxies.find()?;
    let answers = mesh.ask(|sidecar| async move { sidecar.get::<Recent>("/recent").await })?;
    let (containers, unanswered) = (answers.containers, answers.unanswered);
    let (targets, pool) = pool(answers.answers);
    let is_meant = |seen: &SeenConn| args.workload.as_ref().is_none_or(|name| name.is(&seen.proxy));
    let Some(found) = find::choose(&pool, &args.which, is_meant) else {
        return Err(Failure::message(Exit::Failure, find::nothing(&pool, &args.which, targets.len())));
    };
    let other = find::other_side(&pool, found);
    // The side of the server has the policy.
    let server = [Some(found), other].into_iter().flatten().find(|seen| seen.is_inbound());
    let policy = server.and_then(|seen| policy(&mesh, targets.get(seen.proxy_index)?, seen));
    let report =
        Report::new(found, other, policy, |address: IpAddr| containers.get(address).map(str::to_owned), unanswered);
    match args.list.output {
        OutputFormat::Json => output::json(&report)?,
        OutputFormat::Yaml => output::yaml(&report)?,
        OutputFormat::Name => output::text(&format!("{}\n", output::clean(&report.name())))?,
        _ => output::text(&report.text(args.list.is_coloured()))?,
    }
    Ok(Exit::Ok)
}

/// Every connection that the proxies remember.
fn pool(answers: Vec<Answer<Recent>>) -> (Vec<SidecarTarget>, Vec<SeenConn>) {
    let (mut targets, mut pool) = (Vec::new(), Vec::new());
    for (proxy_index, Answer { target, value }) in answers.into_iter().enumerate() {
        targets.push(target);
        let Recent { proxy, connections, .. } = value;
        pool.extend(connections.into_iter().map(|connection| {
            // By the clock of the proxy, so that wrong clocks do not matter.
            let age = proxy.now.seconds_since(connection.ended_at);
            SeenConn { proxy: proxy.clone(), proxy_index, connection, age }
        }));
    }
    (targets, pool)
}

/// The policies of one proxy. That it does not answer any more costs the report this part only.
fn policy(mesh: &Mesh, target: &SidecarTarget, seen: &SeenConn) -> Option<Policy> {
    let port = seen.connection.port;
    let answers = mesh.rows_of(std::slice::from_ref(target), move |sidecar| async move {
        let explanation = match port {
            Some(port) => Some(sidecar.get::<Explanation>(&format!("/explain?port={port}")).await?),
            None => None,
        };
        Ok(Policy { explanation, policies: sidecar.get("/policies").await? })
    });
    answers.answers.into_iter().next().map(|answer| answer.value)
}
