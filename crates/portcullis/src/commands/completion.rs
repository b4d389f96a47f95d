//! `portcullis completion`: what a shell needs to complete our command line.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Outcome;
use crate::exit::Exit;
use crate::output;

/// Print the completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis completion bash > /etc/bash_completion.d/portcullis
  portcullis completion zsh > ~/.zfunc/_portcullis
  portcullis completion fish > ~/.config/fish/completions/portcullis.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// `C` is the whole command line, which only its owner knows.
pub(crate) fn run<C: CommandFactory>(args: &Args) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "portcullis", &mut text);
    output::text(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Ok)
}
