//! A number of connections of one kind: large ones, half-closed ones, reset ones, and those where one side stops reading.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::shared::{Options, Progress, Shared, dial, late};
use crate::pattern::{Bytes, Direction, Fault, expect_digest, expect_end};
use crate::protocol::{Header, Kind};

/// `count` connections of `kind`, `at_once` at the same time.
pub(super) fn once(shared: &Arc<Shared>, options: &Options, tasks: &mut JoinSet<()>) {
    let kind = match options.text("kind") {
        Some("duplex") => Kind::Duplex,
        Some("early-end") => Kind::EarlyEnd,
        Some("app-resets") => Kind::AppResets,
        Some("client-resets") => Kind::ClientResets,
        other => panic!("there is no kind {other:?}"),
    };
    let room = Arc::new(Semaphore::new(usize::try_from(options.number("at_once", 50)).unwrap()));
    let (target, tag) = (options.target(), options.tag());
    let (up, down) = (options.number("up", 20_000), options.number("down", 20_000));
    for _ in 0..options.number("count", 1) {
        let (shared, room) = (Arc::clone(shared), Arc::clone(&room));
        tasks.spawn(async move {
            let _place = room.acquire().await;
            let header = shared.header(kind, tag, up, down);
            run(&shared, target, header).await;
        });
    }
}

/// `count` connections, one every `pace` microseconds; the client does not read from one half of them, the app not from the other.
pub(super) fn slow(shared: &Arc<Shared>, options: &Options, tasks: &mut JoinSet<()>) {
    let (target, tag, size) = (options.target(), options.tag(), options.number("size", 4 << 20));
    let pace = options.number("pace", 4000);
    for number in 0..options.number("count", 100) {
        let header = match number % 2 {
            0 => shared.header(Kind::Flood, tag, 0, size),
            _ => shared.header(Kind::Stall, tag, size, 0),
        };
        let shared = Arc::clone(shared);
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_micros(number * pace)).await;
            run(&shared, target, header).await;
        });
    }
}

async fn run(shared: &Shared, target: SocketAddr, header: Header) {
    let mut progress = shared.begin();
    let outcome = converse(shared, target, &header, &mut progress).await;
    shared.end(&progress, outcome);
}

async fn converse(shared: &Shared, target: SocketAddr, header: &Header, progress: &mut Progress) -> Result<(), Fault> {
    let mut stream = dial(target).await?;
    late(header.write(&mut stream)).await?;
    let mut up = Bytes::new(header.seed, Direction::Up);
    let mut down = Bytes::new(header.seed, Direction::Down);
    match header.kind {
        Kind::Duplex => {
            let (mut reader, mut writer) = stream.split();
            tokio::try_join!(up.send(&mut writer, header.up), down.receive(&mut reader, header.down))?;
            stream.shutdown().await?;
            late(expect_digest(&mut stream, &up)).await?;
            late(expect_end(&mut stream)).await?;
        }
        Kind::Flood => {
            let _gone = shared.resumed.clone().wait_for(|resumed| *resumed).await.is_ok();
            down.receive(&mut stream, header.down).await?;
            late(expect_end(&mut stream)).await?;
            stream.shutdown().await?;
        }
        Kind::Stall => {
            // Stands still until the app reads, so without a deadline.
            up.send(&mut stream, header.up).await?;
            late(expect_digest(&mut stream, &up)).await?;
            stream.shutdown().await?;
            late(expect_end(&mut stream)).await?;
        }
        Kind::EarlyEnd => {
            late(down.receive(&mut stream, header.down)).await?;
            late(expect_end(&mut stream)).await?;
            late(up.send(&mut stream, header.up)).await?;
            stream.shutdown().await?;
        }
        Kind::AppResets => {
            late(up.send(&mut stream, header.up)).await?;
            until_reset(&mut stream, &mut down, header.down).await?;
        }
        Kind::ClientResets => {
            late(up.send(&mut stream, header.up / 2)).await?;
            // The app must have accepted, or there would be no connection to pass the reset on to.
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.set_zero_linger()?;
        }
        Kind::Exchange | Kind::AppEnds | Kind::Pulse => panic!("{:?} is another load's", header.kind),
    }
    shared.answered(progress);
    shared.bytes(up.position() + down.position());
    Ok(())
}

/// A reset must come out as one; an end would be a lie about what the app said.
async fn until_reset(stream: &mut TcpStream, down: &mut Bytes, most: u64) -> Result<(), Fault> {
    match late(down.receive(stream, most)).await {
        Err(fault) if fault.is_reset() => Ok(()),
        Err(Fault::Short(_) | Fault::Empty) => Err(Fault::Corrupt("a reset came out as an end".to_owned())),
        Err(fault) => Err(fault),
        Ok(()) => Err(Fault::Corrupt("more came than was sent".to_owned())),
    }
}
