//! Long connections that say something now and then, and notice at once when they are ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::shared::{Options, Progress, Shared, dial, late, pause};
use crate::pattern::{Bytes, Direction, Fault, expect_digest, expect_end};
use crate::protocol::Kind;

/// Before the next attempt where one has failed.
const AGAIN: Duration = Duration::from_millis(25);

#[derive(Clone, Copy)]
struct Plan {
    target: SocketAddr,
    tag: u8,
    chunk: u64,
    interval: Duration,
    /// After this it ends by itself, and the next one comes; zero for never.
    life: Duration,
    reopen: bool,
}

/// `count` at once; each sends `chunk` bytes every `interval` milliseconds for `life` milliseconds.
pub(super) fn start(shared: &Arc<Shared>, options: &Options, tasks: &mut JoinSet<()>) {
    let plan = Plan {
        target: options.target(),
        tag: options.tag(),
        chunk: options.number("chunk", 500),
        interval: Duration::from_millis(options.number("interval", 100)),
        life: Duration::from_millis(options.number("life", 0)),
        reopen: options.number("reopen", 1) == 1,
    };
    for number in 0..options.number("count", 10) {
        let shared = Arc::clone(shared);
        tasks.spawn(async move {
            // Not all at once, in every later round as well.
            let mut go_on =
                pause(&shared, plan.interval.mul_f64(f64::from(u8::try_from(number % 100).unwrap()) / 100.0)).await;
            while go_on {
                let mut progress = shared.begin();
                let outcome = converse(&shared, &plan, &mut progress).await;
                let failed = outcome.is_err();
                shared.end(&progress, outcome);
                go_on = plan.reopen && if failed { pause(&shared, AGAIN).await } else { !shared.is_stopped() };
            }
        });
    }
}

async fn converse(shared: &Shared, plan: &Plan, progress: &mut Progress) -> Result<(), Fault> {
    let mut stream = dial(plan.target).await?;
    let header = shared.header(Kind::Pulse, plan.tag, 0, 0);
    late(header.write(&mut stream)).await?;
    let mut up = Bytes::new(header.seed, Direction::Up);
    let mut down = Bytes::new(header.seed, Direction::Down);
    let end = (!plan.life.is_zero()).then(|| Instant::now() + plan.life);
    while !shared.is_stopped() && end.is_none_or(|end| Instant::now() < end) {
        late(up.send(&mut stream, plan.chunk)).await?;
        late(down.receive(&mut stream, plan.chunk)).await?;
        shared.answered(progress);
        shared.bytes(2 * plan.chunk);
        quiet(shared, &mut stream, plan.interval).await?;
    }
    stream.shutdown().await?;
    late(expect_digest(&mut stream, &up)).await?;
    late(expect_end(&mut stream)).await
}

/// The pause, in which nothing may come and the connection must not end.
async fn quiet(shared: &Shared, stream: &mut TcpStream, length: Duration) -> Result<(), Fault> {
    let watched = timeout(length, async {
        tokio::select! {
            () = shared.stopped() => Ok(()),
            end = expect_end(stream) => end.and_then(|()| Err(Fault::Short("between two pulses".to_owned()))),
        }
    });
    watched.await.unwrap_or(Ok(()))
}
