//! `portcullis join`: gives this host the roots of an authority, and its workloads their first tokens.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueHint;
use portcullis_ca::{JoinToken, Private, write};
use portcullis_ca_client::join::{JoinError, Joined, JoinedWorkload, Joining, join};
use portcullis_config::HostPort;
use portcullis_identity::SpiffeId;
use portcullis_tls::{Clock, utc};
use zeroize::Zeroizing;

use super::values::{self, parse_id};
use crate::exit::{Exit, Failure, Outcome};
use crate::files::{not_written, read_text};
use crate::output;

const MAX_TOKEN_LEN: u64 = 1024;
const PAUSE: Duration = Duration::from_millis(250);

/// Join a certificate authority on another host: 0 joined, 65 the token is wrong, 69 no answer
///
/// `portcullis ca join-token create` on the host of the CA makes the token. The server at ADDRESS must show the root certificate that the token
/// names; until then nothing is sent, so nobody between learns or changes anything. For each workload of the token a folder is written:
/// DIR/NAMESPACE/ACCOUNT with root-cert.pem, token (readable by its owner only) and identity.yaml, the section of a sidecar's
/// configuration that uses both.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis join ca.example.org:15012 --token-file join-token --out identity
  portcullis join 10.1.0.5:15012 --server-name ca.example.org --token-file - --out identity < join-token
  portcullis join ca.example.org:15012 --token-file join-token --out identity --id spiffe://cluster.local/ns/shop/sa/db")]
pub(crate) struct Args {
    /// Where the CA listens
    #[arg(value_name = "HOST:PORT", value_parser = values::host_port)]
    address: HostPort,
    /// The join token; other users of this host can read it while the command runs, so prefer --token-file
    #[arg(long, value_name = "TOKEN", required_unless_present = "token_file", conflicts_with = "token_file")]
    token: Option<String>,
    /// File with the join token; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// Folder that is written
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Only these of the token's identities; may be repeated [default: all]
    #[arg(long, value_name = "SPIFFE_ID")]
    id: Vec<String>,
    /// Name or IP address in the certificate of the CA [default: the host of ADDRESS]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Leave out identities of --id that have a token in DIR already
    #[arg(long, requires = "id")]
    keep_existing: bool,
    /// User and group that own what is written, such as 1337:1337
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    owner: Option<Owner>,
    /// How long to try to connect, such as 10s or 2m
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, default_value = "10s")]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    user: u32,
    group: u32,
}

fn owner(text: &str) -> Result<Owner, String> {
    let split = text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    let (user, group) = split.ok_or_else(|| "write two numbers, such as 1337:1337".to_owned())?;
    Ok(Owner { user, group })
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut ids = args.id.iter().map(|text| parse_id(text)).collect::<Result<Vec<SpiffeId>, _>>()?;
    if args.keep_existing {
        ids.retain(|id| !workload_dir(&args.out, id).is_some_and(|dir| dir.join("token").exists()));
        if ids.is_empty() {
            output::text("unchanged: every identity has a token already\n")?;
            return Ok(Exit::Ok);
        }
    }
    let (token, shown) = token(args)?;
    let token = JoinToken::parse(token.trim())
        .map_err(|error| Failure::message(Exit::BadInput, format!("{shown}: {error}")))?;
    // The token may be good for one host only, so what can go wrong here goes wrong before it is sent.
    if ids.is_empty() {
        writable(&args.out)?;
    }
    for folder in ids.iter().filter_map(|id| workload_dir(&args.out, id)) {
        writable(&folder)?;
    }
    let server_name = args.server_name.as_deref().unwrap_or(&args.address.host);
    let (root_sha256, text) = (*token.root(), token.text());
    let joining = Joining { address: &args.address, server_name, root_sha256, token: &text, ids: &ids };
    let joined = patiently(&joining, args.timeout)?;
    let dir = fs::canonicalize(&args.out).with_context(|| args.out.display().to_string())?;
    output::text(&format!("joined {} at {}\n", joined.trust_domain, args.address))?;
    for workload in &joined.tokens {
        let place = put(&dir, args, &joined, workload)?;
        let (id, until) = (&workload.id, utc(workload.expires_unix));
        output::text(&format!("{id}: {} (its token is good until {until})\n", place.display()))?;
    }
    Ok(Exit::Ok)
}

/// The token, and where it is from.
fn token(args: &Args) -> Result<(Zeroizing<String>, String), Failure> {
    match (&args.token, &args.token_file) {
        (Some(token), _) => Ok((Zeroizing::new(token.clone()), "--token".to_owned())),
        (None, Some(file)) => Ok((Zeroizing::new(read_text(file, MAX_TOKEN_LEN)?), file.display().to_string())),
        (None, None) => Err(Failure::message(Exit::Usage, "name the join token: --token-file FILE")),
    }
}

fn writable(dir: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| dir.display().to_string())?;
    let probe = dir.join(".join");
    write(&probe, b"", Private::Yes, true).map_err(not_written)?;
    Ok(fs::remove_file(&probe).with_context(|| probe.display().to_string())?)
}

/// Repeats attempts of which nothing was sent: the CA may be starting.
fn patiently(joining: &Joining<'_>, timeout: Duration) -> Result<Joined, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let begun = Instant::now();
    loop {
        let error = match runtime.block_on(join(joining, &Clock::system())) {
            Ok(joined) => return Ok(joined),
            Err(error) => error,
        };
        let may_repeat = matches!(&error, JoinError::Fetch(portcullis_ca_client::FetchError::Connect(_)));
        if may_repeat && begun.elapsed() < timeout {
            thread::sleep(PAUSE);
            continue;
        }
        let exit = if error.is_unreachable() { Exit::Unreachable } else { Exit::BadInput };
        let next = if error.is_refusal() {
            "; make another token with `portcullis ca join-token create` on the host of the CA, whose log says more"
        } else {
            ""
        };
        return Err(Failure::message(exit, format!("{}: {error}{next}", joining.address)));
    }
}

/// Segments of a SPIFFE ID have no slash and are not `.` or `..`, so they are names of folders.
fn workload_dir(dir: &Path, id: &SpiffeId) -> Option<PathBuf> {
    id.istio().map(|istio| dir.join(istio.namespace).join(istio.service_account))
}

/// Writes the files of a workload. Returns the one for its sidecar's configuration.
fn put(dir: &Path, args: &Args, joined: &Joined, workload: &JoinedWorkload) -> Result<PathBuf, Failure> {
    let JoinedWorkload { id, token, .. } = workload;
    let Some(folder) = workload_dir(dir, id) else {
        return Err(Failure::message(
            Exit::BadInput,
            format!("{id} has no namespace and no service account, so it has no folder"),
        ));
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(|| folder.display().to_string())?;
    let (roots, token_file, section) =
        (folder.join("root-cert.pem"), folder.join("token"), folder.join("identity.yaml"));
    write(&roots, joined.roots_pem.as_bytes(), Private::No, true).map_err(not_written)?;
    write(&section, identity_section(args, id, &roots, &token_file).as_bytes(), Private::No, true)
        .map_err(not_written)?;
    write(&token_file, token.as_bytes(), Private::Yes, true).map_err(not_written)?;
    if let Some(Owner { user, group }) = args.owner {
        for path in [&folder, &roots, &section, &token_file] {
            chown(path, Some(user), Some(group)).with_context(|| format!("--owner: {}", path.display()))?;
        }
    }
    Ok(section)
}

/// What a sidecar's configuration needs.
fn identity_section(args: &Args, id: &SpiffeId, roots: &Path, token: &Path) -> String {
    // JSON strings are YAML strings, whatever is in the path.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let path = |path: &Path| quoted(&path.display().to_string());
    let mut text = format!(
        "# {id}: for the configuration of its sidecar. Written by `portcullis join`.\nidentity:\n  ca:\n    address: {}\n    trustBundle: {}\n    tokenFile: {}\n    renewToken: true # a sidecar that restarts finds a new one\n",
        quoted(&args.address.to_string()),
        path(roots),
        path(token)
    );
    if let Some(name) = &args.server_name {
        text.push_str(&format!("    serverName: {}\n", quoted(name)));
    }
    text
}
