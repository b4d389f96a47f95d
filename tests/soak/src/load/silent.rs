//! Clients that hold a place and never get anywhere: they say nothing, or their hello byte by byte.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::shared::{Options, Shared, pause};

/// The beginning of a hello of 508 bytes, which takes longer than any handshake deadline at one byte a second.
const HELLO: [u8; 11] = [0x16, 3, 1, 0x02, 0, 1, 0, 1, 0xfc, 3, 3];
const AGAIN: Duration = Duration::from_millis(500);

/// `count` at once, from `sources` addresses; each sends a byte every `drip` milliseconds, or none if that is 0. One
/// that is closed comes again.
pub(super) fn start(shared: &Arc<Shared>, options: &Options, tasks: &mut JoinSet<()>) {
    let (target, drip) = (options.target(), options.number("drip", 0));
    let sources = options.number("sources", 1);
    for number in 0..options.number("count", 100) {
        let shared = Arc::clone(shared);
        let [.., high, low] = u32::try_from(number % sources + 1).unwrap().to_be_bytes();
        let source = Ipv4Addr::new(127, 7, high, low);
        tasks.spawn(async move {
            let mut go_on = pause(&shared, Duration::from_micros(500 * number)).await;
            while go_on {
                shared.begin();
                let life = match dial(source, target).await {
                    Ok(stream) => Some(hold(&shared, stream, Duration::from_millis(drip)).await),
                    Err(error) => {
                        *shared.stats().reasons.entry(format!("dial: {:?}", error.kind())).or_default() += 1;
                        None
                    }
                };
                ended(&shared, life);
                go_on = pause(&shared, AGAIN).await;
            }
        });
    }
}

fn ended(shared: &Shared, life: Option<Duration>) {
    let mut stats = shared.stats();
    stats.open -= 1;
    stats.lifetimes.extend(life.map(|life| u64::try_from(life.as_millis()).unwrap()));
}

async fn dial(source: Ipv4Addr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Thousands come and go from each address.
    socket.set_reuseaddr(true)?;
    socket.bind((source, 0).into())?;
    timeout(Duration::from_secs(10), socket.connect(target)).await?
}

/// How long it lived, or has lived until now if the load ends.
async fn hold(shared: &Shared, mut stream: TcpStream, drip: Duration) -> Duration {
    let began = Instant::now();
    let mut sent = 0;
    let mut answer = [0; 64];
    loop {
        let wait = if drip.is_zero() { Duration::from_secs(3600) } else { drip };
        tokio::select! {
            () = shared.stopped() => return began.elapsed(),
            read = stream.read(&mut answer) => {
                if !matches!(read, Ok(read) if read > 0) {
                    return began.elapsed();
                }
            }
            () = tokio::time::sleep(wait) => {
                let byte = HELLO.get(sent).copied().unwrap_or(0x5a);
                sent += 1;
                if stream.write_all(&[byte]).await.is_err() {
                    return began.elapsed();
                }
            }
        }
    }
}
