//! A load generator that checks every byte, the app at the other end, and a faulty stand-in for the proxy between them.
//!
//! ```text
//! portcullis-soak app LISTEN
//! portcullis-soak relay LISTEN TARGET FAULT
//! portcullis-soak load KIND target=ADDRESS [NAME=VALUE...]
//! ```
//! Each takes commands on standard input and answers every one with a line of JSON; see `.ci/soak`, which drives them.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a generator that cannot set its scene has failed"
)]

mod app;
mod control;
mod load;
mod pattern;
mod protocol;
mod relay;

use std::io;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
        match words.as_slice() {
            ["app", listen] => app::run(listen.parse().unwrap()).await,
            ["relay", listen, target, fault] => {
                relay::run(listen.parse().unwrap(), target.parse().unwrap(), fault).await
            }
            ["load", kind, options @ ..] => load::run(kind, &load::Options::new(options)).await,
            _ => panic!("see the top of tests/soak/src/main.rs for the usage"),
        }
    });
    runtime.shutdown_background();
    done
}
