//! The `portcullis` binary: subcommands and wiring. The work is in the crates that it calls.
//!
//! Data goes to standard output, everything else to standard error; the exit codes are in [`exit`].

mod build_info;
mod cli;
mod commands;
mod config_source;
mod daemon;
mod demo;
mod exit;
mod files;
mod holder;
#[cfg(test)]
mod man_pages;
mod output;
mod ready;
mod sandbox;
mod set_hash;
mod signals;
mod systemd;
mod uncaptured;

fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os())
}
