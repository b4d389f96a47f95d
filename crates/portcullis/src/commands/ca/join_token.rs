//! `portcullis ca join-token`: makes, lists and revokes the tokens with which other hosts join.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_ca_server::{
    JoinTokenAnswer, JoinTokenRequest, JoinTokenStatus, MAX_JOIN_TTL_SECONDS, NewJoinToken, join_token,
};
use portcullis_identity::SpiffeId;

use super::folder::{refuse_certs_folder, unanswered};
use super::init::register_missing;
use crate::commands::Outcome;
use crate::commands::values::{parse_id, ttl};
use crate::exit::{Exit, Failure};
use crate::output::{self, List, ListArgs, Table};

/// How long the running CA may take to read identities.yaml again.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Make, list and revoke join tokens, with which `portcullis join` on another host gets its first tokens and the roots
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca join-token create --dir ca --id spiffe://cluster.local/ns/shop/sa/db
  portcullis ca join-token create --dir ca --id spiffe://cluster.local/ns/shop/sa/db --uses 3 --ttl 1d > join-token
  portcullis ca join-token list --dir ca
  portcullis ca join-token revoke --dir ca 5f2c99e6958b")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(CreateArgs),
    List(ListTokensArgs),
    Revoke(RevokeArgs),
}

/// Make a join token for the workloads of another host, and print it once; identities that are not registered yet are registered
///
/// It is a secret until it is used up, expired or revoked. The CA keeps its hash only. It holds the hash of the root certificate, so that the
/// other host recognises this CA before it sends anything. The CA must run on the folder.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca join-token create --dir ca --id spiffe://cluster.local/ns/shop/sa/db
  portcullis ca join-token create --dir ca --id spiffe://cluster.local/ns/shop/sa/db --uses 3 --ttl 1d > join-token")]
struct CreateArgs {
    /// Folder of the CA
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// SPIFFE ID of a workload on the other host; may be repeated
    #[arg(long, value_name = "SPIFFE_ID", required = true)]
    id: Vec<String>,
    /// How many hosts may join with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    uses: u32,
    /// How long it is valid, such as 10m, 1h or 7d; at most a week
    #[arg(long, value_parser = ttl, default_value = "1h")]
    ttl: Duration,
}

/// List the join tokens: what each is for, and how often it can still be used
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca join-token list --dir ca
  portcullis ca join-token list --dir ca -o json")]
struct ListTokensArgs {
    /// Folder of the CA
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    list: ListArgs,
}

/// Make a join token useless; hosts that have joined with it keep their certificates
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca join-token revoke --dir ca 5f2c99e6958b")]
struct RevokeArgs {
    /// Folder of the CA
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Its number: the second part of the token, and the first column of `list`
    #[arg(value_name = "NUMBER")]
    number: String,
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Create(args) => create(args),
        Command::List(args) => list(args),
        Command::Revoke(args) => revoke(args),
    }
}

fn create(args: &CreateArgs) -> Outcome {
    let ids = args.id.iter().map(|text| parse_id(text)).collect::<Result<Vec<SpiffeId>, _>>()?;
    let ttl_seconds =
        u32::try_from(args.ttl.as_secs()).ok().filter(|seconds| (60..=MAX_JOIN_TTL_SECONDS).contains(seconds));
    let Some(ttl_seconds) = ttl_seconds else {
        return Err(Failure::message(Exit::Usage, "--ttl: a join token lasts a minute to a week"));
    };
    refuse_certs_folder(&args.dir, Exit::BadInput)?;
    // Nothing is registered for a CA that does not run.
    portcullis_ca_server::status_of(&args.dir).map_err(unanswered(&args.dir))?;
    for id in register_missing(&args.dir, &ids, None)? {
        output::note(&format!("registered: {id}"));
    }
    let ids = ids.iter().map(ToString::to_string).collect();
    let request = JoinTokenRequest::Create { ids, uses: args.uses, ttl_seconds };
    let begun = Instant::now();
    let NewJoinToken { token, address, kept } = loop {
        match ask(&args.dir, &request)? {
            JoinTokenAnswer::Created(new) => break new,
            // The file that was just written is being read.
            JoinTokenAnswer::NotRegistered(_) if begun.elapsed() < RELOAD_TIMEOUT => thread::sleep(PAUSE),
            JoinTokenAnswer::NotRegistered(id) => {
                let message = format!(
                    "the running CA does not know {id}; its log says why it does not read identities.yaml again"
                );
                return Err(Failure::message(Exit::Failure, message));
            }
            _ => return Err(unexpected()),
        }
    };
    output::text(&format!("{token}\n"))?;
    let address = address.unwrap_or_else(|| "ADDRESS:PORT".to_owned());
    let hosts = if args.uses == 1 { "one host".to_owned() } else { format!("{} hosts", args.uses) };
    output::note(&format!(
        "token {} is good for {hosts} until {}; it is shown only now. There:\n  portcullis join {address} --token TOKEN --out identity",
        kept.number, kept.expires
    ));
    Ok(Exit::Ok)
}

fn list(args: &ListTokensArgs) -> Outcome {
    let JoinTokenAnswer::Tokens(tokens) = ask(&args.dir, &JoinTokenRequest::List)? else { return Err(unexpected()) };
    let shown = || {
        let mut table = Table::new(["NUMBER", "STATE", "USES LEFT", "EXPIRES", "IDENTITIES"]);
        for JoinTokenStatus { number, state, uses_left, expires, ids } in &tokens {
            let uses = uses_left.to_string();
            let ids = ids.join(" ");
            table.push([
                number.as_str().into(),
                state.as_str().into(),
                uses.into(),
                expires.as_str().into(),
                ids.into(),
            ]);
        }
        args.list.table(&table)
    };
    let list = List { kind: "JoinTokenList", items: &tokens, unanswered: &[] };
    args.list.print(&list, shown, |token| token.number.clone())?;
    Ok(Exit::Ok)
}

fn revoke(args: &RevokeArgs) -> Outcome {
    match ask(&args.dir, &JoinTokenRequest::Revoke { number: args.number.clone() })? {
        JoinTokenAnswer::Revoked => output::text(&format!("revoked: {}\n", args.number.escape_debug()))?,
        _ => return Err(unexpected()),
    }
    Ok(Exit::Ok)
}

fn ask(dir: &Path, request: &JoinTokenRequest) -> Result<JoinTokenAnswer, Failure> {
    match join_token(dir, request).map_err(unanswered(dir))? {
        JoinTokenAnswer::Refused(why) => Err(Failure::message(Exit::Failure, why)),
        answer => Ok(answer),
    }
}

fn unexpected() -> Failure {
    Failure::message(Exit::Failure, "the CA answers something else than what was asked: it is of another version")
}
