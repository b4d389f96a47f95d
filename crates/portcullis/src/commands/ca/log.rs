//! `portcullis ca log`: shows issued certificates and refused requests.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use portcullis_ca_server::audit_files;
use serde_json::Value;

use crate::commands::Outcome;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

/// How often a followed file is checked.
const LOOK: Duration = Duration::from_millis(250);

/// Show certificates that were issued and requests that were refused, from audit.jsonl and those before it
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca log --dir ca
  portcullis ca log --dir ca --id spiffe://cluster.local/ns/shop/sa/cart --follow
  portcullis ca log --dir ca -o json | tail -1")]
pub(super) struct Args {
    /// Folder of the CA
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Only lines about this SPIFFE ID
    #[arg(long, value_name = "SPIFFE_ID")]
    id: Option<String>,
    /// Wait for further lines, until interrupted
    #[arg(long)]
    follow: bool,
    /// Output format; json is one object per line
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(args: &Args) -> Outcome {
    let files = audit_files(&args.dir);
    let Some((current, older)) = files.split_last() else {
        let message = format!("{}: no CA has run on this folder", args.dir.join("audit.jsonl").display());
        return Err(Failure::message(Exit::Failure, message));
    };
    if args.output == Format::Text {
        output::text(&row("TIME", "EVENT", "ID", "WITH", "SERIAL OR REASON"))?;
    }
    for path in older {
        to_the_end(args, &mut open(path)?, path, &mut String::new())?;
    }
    let (mut lines, mut line) = (open(current)?, String::new());
    loop {
        to_the_end(args, &mut lines, current, &mut line)?;
        if !args.follow {
            return Ok(Exit::Ok);
        }
        if was_replaced(lines.get_ref(), current) {
            // What was written between the last look and the change.
            to_the_end(args, &mut lines, current, &mut line)?;
            (lines, line) = (open(current)?, String::new());
        } else {
            thread::sleep(LOOK);
        }
    }
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).with_context(|| path.display().to_string())?))
}

/// Shows all whole lines; `line` keeps the beginning of one that is being written.
fn to_the_end(args: &Args, lines: &mut BufReader<File>, path: &Path, line: &mut String) -> anyhow::Result<()> {
    while lines.read_line(line).with_context(|| path.display().to_string())? > 0 && line.ends_with('\n') {
        show(args, line)?;
        line.clear();
    }
    Ok(())
}

/// Whether another file has the name now. While there is none, the CA is about to make one.
fn was_replaced(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) != (there.dev(), there.ino()),
        _ => false,
    }
}

fn show(args: &Args, line: &str) -> std::io::Result<()> {
    let entry: Value = match serde_json::from_str(line) {
        Ok(entry) => entry,
        // What a power cut left of a line.
        Err(_) => return Ok(()),
    };
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("-");
    if args.id.as_deref().is_some_and(|id| id != text("id")) {
        return Ok(());
    }
    match args.output {
        Format::Json => output::text(line),
        Format::Text => {
            let last = if text("event") == "issued" { text("serial") } else { text("reason") };
            output::text(&row(text("time"), text("event"), text("id"), text("by"), last))
        }
    }
}

fn row(time: &str, event: &str, id: &str, with: &str, last: &str) -> String {
    format!("{time:<20}  {event:<8}  {id:<44}  {with:<5}  {last}\n")
}
