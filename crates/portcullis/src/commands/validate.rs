//! `portcullis validate`: every mistake of every policy file in one run.

use std::path::PathBuf;

use portcullis_policy::{Diagnostic, PolicySet};
use portcullis_tls::{Clock, check_extra_roots};
use serde::Serialize;

use crate::exit::{Exit, Outcome};
use crate::files::Policies;
use crate::output::{self, Format};

/// Check policy files and list every mistake in them: 0 valid, 65 not
///
/// PeerAuthentication, AuthorizationPolicy and, for settings of certificates, IstioOperator. Warnings name what works here and Istio ignores.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis validate -f policies
  portcullis validate -f mesh.yaml shop.yaml -o json
  cat policies/*.yaml | portcullis validate -f -")]
pub(crate) struct Args {
    /// Files, or folders with every .yaml, .yml and .json below them; together they are one set. `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", num_args = 1.., required = true)]
    file: Vec<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Answer {
    valid: bool,
    documents: usize,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Policies { sources, mut errors } = Policies::read(&args.file);
    let now = Clock::system().now_unix();
    let loaded = PolicySet::load_at(&sources, now);
    let roots = check_extra_roots(loaded.set.mesh(), now);
    errors.extend(loaded.errors.into_iter().chain(roots.errors));
    let warnings = loaded.warnings.into_iter().chain(roots.warnings).collect();
    let answer = Answer { valid: errors.is_empty(), documents: loaded.documents, errors, warnings };
    match args.output {
        Format::Json => output::json(&answer)?,
        Format::Text => output::text(&text(&answer, sources.len()))?,
    }
    Ok(if answer.valid { Exit::Ok } else { Exit::BadInput })
}

fn text(answer: &Answer, files: usize) -> String {
    let errors = answer.errors.iter().map(|found| format!("error: {found}\n"));
    let warnings = answer.warnings.iter().map(|found| format!("warning: {found}\n"));
    let summary = format!(
        "{}: {} in {}, {}, {}\n",
        if answer.valid { "valid" } else { "invalid" },
        count(answer.documents, "document"),
        count(files, "file"),
        count(answer.errors.len(), "error"),
        count(answer.warnings.len(), "warning"),
    );
    errors.chain(warnings).chain([summary]).collect()
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
