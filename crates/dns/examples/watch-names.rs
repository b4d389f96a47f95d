//! Keeps names up to date and prints each change. `tests/dns/run` drives it against a real server.
//!
//! ```sh
//! watch-names --server 127.0.0.1:5353 [--server ADDRESS:PORT] [--search DOMAIN] NAME...
//! ```
//!
//! A line is one change: a name, `known` or `failed`, and its addresses. Lines of the input are commands: `lookup NAME` asks
//! once and prints the answer; `unknown ADDRESS` looks all names up for an unknown address and prints who has it then;
//! `busy MILLISECONDS` blocks the first of the two threads meanwhile. `lookup` runs on the other one.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, BufRead as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use portcullis_dns::{Names, Resolver};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut servers, mut search, mut names) = (Vec::<SocketAddr>::new(), Vec::new(), Vec::<Arc<str>>::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or("a value is missing");
        match argument.as_str() {
            "--server" => servers.push(value()?.parse()?),
            "--search" => search.push(value()?),
            _ => names.push(argument.into()),
        }
    }
    let resolver = Resolver::with_servers(&servers, &search);
    let set = Names::new(resolver.clone());
    let (commands, received) = mpsc::unbounded_channel();
    let first = Builder::new_current_thread().enable_all().build()?;
    let blocker = first.handle().clone();
    let watched = Arc::clone(&set);
    thread::spawn(move || first.block_on(watch(watched, names)));
    let second = Builder::new_current_thread().enable_all().build()?;
    let answering = thread::spawn(move || second.block_on(answer(resolver, set, received)));
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.strip_prefix("busy ") {
            Some(milliseconds) => {
                let pause = Duration::from_millis(milliseconds.parse()?);
                blocker.spawn(async move {
                    print("busy");
                    thread::sleep(pause);
                    print("idle");
                });
            }
            None => commands.send(line)?,
        }
    }
    drop(commands);
    answering.join().map_err(|_panic| "panicked").map_err(Into::into)
}

/// The first thread: prints what changes.
async fn watch(set: Arc<Names>, names: Vec<Arc<str>>) {
    let mut changed = set.changed();
    set.watch(names.iter().cloned());
    let running = Arc::clone(&set);
    tokio::spawn(async move { running.run().await });
    let mut printed = HashMap::new();
    loop {
        for name in &names {
            let table = set.table();
            let state = if table.is_failed(name) { "failed" } else { "known" };
            let line = format!("{name} {state} {}", list(table.addresses(name)));
            if printed.get(name) != Some(&line) {
                print(&line);
                printed.insert(Arc::clone(name), line);
            }
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// The second thread: carries out commands, one after the other.
async fn answer(resolver: Resolver, set: Arc<Names>, mut commands: mpsc::UnboundedReceiver<String>) {
    while let Some(command) = commands.recv().await {
        match command.split_once(' ') {
            Some(("lookup", name)) => match resolver.lookup(name).await {
                Ok(found) => {
                    let incomplete = found.incomplete.map_or(String::new(), |error| format!(" incomplete: {error}"));
                    print(&format!("answer {} s {}{incomplete}", found.valid_for.as_secs(), list(&found.addresses)));
                }
                Err(error) => print(&format!("error {error}")),
            },
            Some(("unknown", address)) => {
                if let Ok(address) = address.parse::<IpAddr>() {
                    set.refresh_all(address).await;
                    print(&format!("owners {}", set.table().names_of(address).join(" ")));
                }
            }
            _ => print("what?"),
        }
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn print(line: &str) {
    // Nobody reads any more when this fails.
    let _written = writeln!(io::stdout(), "{}", line.trim_end());
}
