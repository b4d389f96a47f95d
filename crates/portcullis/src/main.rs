//! The `portcullis` binary: subcommands and wiring. What it does is in the crates it calls.
//!
//! Data goes to standard output, everything else to standard error; the exit codes are in [`exit`].

mod cli;
mod commands;
mod daemon;
mod demo;
mod exit;
mod files;
mod http;
mod output;
mod ready;
mod sandbox;
mod signals;
mod uncaptured;

fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os())
}
