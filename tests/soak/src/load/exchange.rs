//! Short connections at a rate: dialled, used once, ended by either side, and read to the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::shared::{Options, Progress, Shared, dial, late};
use crate::pattern::{Bytes, Direction, Fault, expect_digest, expect_end};
use crate::protocol::{Header, Kind};

/// Beyond these, a rate is not held any more, and the missing ones are counted as skipped.
const MAX_OPEN: u64 = 2000;

/// `rate` a second, with `up` and `down` bytes.
pub(super) fn start(shared: &Arc<Shared>, options: &Options, tasks: &mut JoinSet<()>) {
    let (target, tag, rate) = (options.target(), options.tag(), options.number("rate", 100));
    let (up, down) = (options.number("up", 2000), options.number("down", 5000));
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        let mut running = JoinSet::new();
        let mut ticks = interval_at(Instant::now(), Duration::from_micros(1_000_000 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut number = 0;
        loop {
            tokio::select! {
                biased;
                () = shared.stopped() => break,
                Some(_) = running.join_next() => continue,
                _ = ticks.tick() => {}
            }
            number += 1;
            if shared.stats().open >= MAX_OPEN {
                shared.stats().skipped += 1;
                continue;
            }
            let kind = if number % 2 == 0 { Kind::Exchange } else { Kind::AppEnds };
            // Lengths around what was asked for, so that records and buffers end anywhere.
            let header = shared.header(kind, tag, up + number % 97, down + number % 89);
            let shared = Arc::clone(&shared);
            running.spawn(async move { one(&shared, target, header).await });
        }
        while running.join_next().await.is_some() {}
    });
}

async fn one(shared: &Shared, target: SocketAddr, header: Header) {
    let mut progress = shared.begin();
    let outcome = converse(shared, target, header, &mut progress).await;
    shared.end(&progress, outcome);
}

async fn converse(shared: &Shared, target: SocketAddr, header: Header, progress: &mut Progress) -> Result<(), Fault> {
    let mut stream = dial(target).await?;
    let mut up = Bytes::new(header.seed, Direction::Up);
    let mut down = Bytes::new(header.seed, Direction::Down);
    late(async {
        header.write(&mut stream).await?;
        up.send(&mut stream, header.up).await
    })
    .await?;
    late(expect_digest(&mut stream, &up)).await?;
    shared.answered(progress);
    late(down.receive(&mut stream, header.down)).await?;
    late(end(&mut stream, header.kind)).await?;
    shared.bytes(header.up + header.down);
    Ok(())
}

async fn end(stream: &mut TcpStream, kind: Kind) -> Result<(), Fault> {
    if kind == Kind::Exchange {
        stream.shutdown().await?;
        return expect_end(stream).await;
    }
    expect_end(stream).await?;
    Ok(stream.shutdown().await?)
}
