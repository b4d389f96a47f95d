//! `portcullis completion`: completion scripts for shells.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::exit::{Exit, Outcome};
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

/// `C` is the whole command line, which is defined in [`crate::cli`].
pub(crate) fn run<C: CommandFactory>(args: &Args) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "portcullis", &mut text);
    output::text(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Ok)
}
