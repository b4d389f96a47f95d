//! Loads. Each connection has an outcome, and each outcome is counted as what it is.

mod exchange;
mod held;
mod shared;
mod silent;
mod streams;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(crate) use self::shared::Options;
use self::shared::Shared;
use crate::control::{Control, say};
use crate::protocol::PATIENCE;

/// Runs one load until standard input ends.
pub(crate) async fn run(kind: &str, options: &Options) -> io::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let (resume, resumed) = watch::channel(false);
    let seed = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let epoch = AtomicU64::new(u64::from(options.text("expect") == Some("may")));
    let shared = Arc::new(Shared {
        stats: Mutex::default(),
        epoch,
        seed: AtomicU64::new(seed),
        began: Instant::now(),
        stopped,
        resumed,
    });
    let mut tasks = JoinSet::new();
    match kind {
        "exchange" => exchange::start(&shared, options, &mut tasks),
        "streams" => streams::start(&shared, options, &mut tasks),
        "once" => held::once(&shared, options, &mut tasks),
        "slow" => held::slow(&shared, options, &mut tasks),
        "silent" => silent::start(&shared, options, &mut tasks),
        _ => panic!("there is no load {kind}"),
    }
    let mut control = Control::new();
    while let Some(line) = control.next().await {
        match line.as_str() {
            "must" => shared.expect(true),
            "may" => shared.expect(false),
            "resume" => drop(resume.send(true)),
            // Open connections finish.
            "stop" => {
                stop.send(true).unwrap();
                finish(&shared, &mut tasks).await;
            }
            "wait" => finish(&shared, &mut tasks).await,
            "stats" => {}
            _ => panic!("a load knows no {line:?}"),
        }
        say(&shared.report());
    }
    Ok(())
}

async fn finish(shared: &Shared, tasks: &mut JoinSet<()>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(6 * PATIENCE, all).await.is_err() {
        let mut stats = shared.stats();
        stats.failed += 1;
        stats.reasons.insert("failed: connections that do not end".to_owned(), 1);
    }
}
