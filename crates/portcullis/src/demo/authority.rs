//! The certificate authority of the demo: `portcullis ca`, created and run like any other.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, thread};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::log::POLL;
use super::stage::{START, Stage};

/// Folders: the CA's own, and the one with a token for each identity.
const OWN: &str = "ca";
const READY: &str = "identity";

/// A running CA with a token ready for each registered identity.
pub(super) struct Authority {
    address: SocketAddr,
    /// Certificates of its roots.
    pub(super) roots: String,
}

/// The fields of a log line that are used.
#[derive(Deserialize)]
struct Line {
    message: String,
    listen: Option<SocketAddr>,
}

impl Authority {
    /// Creates it for these accounts of the namespace `shop`, and waits until a token is ready for each.
    pub(super) fn start(stage: &Stage, accounts: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (own, ready) = (stage.folder().join(OWN), stage.folder().join(READY));
        let made = program()?
            .args(["ca", "init", "--dir"])
            .arg(&own)
            .args(accounts.iter().flat_map(|&(_, id)| ["--id", id]))
            .stdin(Stdio::null())
            .output()
            .context("cannot run `portcullis ca init`")?;
        ensure!(made.status.success(), "`portcullis ca init`: {}", String::from_utf8_lossy(&made.stderr).trim());
        let (log, errors) = (stage.folder().join("ca.log"), stage.folder().join("ca.err"));
        let mut command = program()?;
        command
            .args(["ca", "run", "--log-format", "json", "--log-level", "info", "--listen", "127.0.0.1:0", "--dir"])
            .arg(&own)
            .arg("--bootstrap")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::create(&errors)?);
        let id = stage.spawn(&mut command)?;
        let content = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let has_token = |(account, _): &(&str, &str)| ready.join("shop").join(account).join("token").exists();
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Some(address) = address(&content(&log))
                && accounts.iter().all(has_token)
            {
                return Ok(Self { address, roots: fs::read_to_string(own.join("root-cert.pem"))? });
            }
            if stage.has_ended(id) {
                bail!("the authority ended: {} {}", content(&errors).trim(), content(&log).trim());
            }
            thread::sleep(POLL);
        }
        bail!("the authority is not ready after {START:?}: {} {}", content(&errors).trim(), content(&log).trim())
    }

    /// `identity` of a sidecar: from this CA, with the token that is ready for the account.
    pub(super) fn identity(&self, account: &str) -> String {
        let folder = format!("{READY}/shop/{account}");
        format!(
            "identity: {{ca: {{address: \"{}\", trustBundle: {folder}/root-cert.pem, tokenFile: {folder}/token}}}}\n",
            self.address
        )
    }
}

fn program() -> anyhow::Result<Command> {
    Ok(Command::new(env::current_exe().context("cannot find this program")?))
}

/// Where it listens, once it serves. The last line may be incomplete.
fn address(log: &str) -> Option<SocketAddr> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.filter(|line| line.message == "serving").find_map(|line| line.listen)
}
