//! A stand-in for a proxy, with a fault. Where the real proxy is claimed to have none, this one shows that a fault would
//! have been counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::control::{Control, say};

/// What is wrong with it, on every tenth connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    /// Nothing.
    None,
    /// A bit of the answer is another.
    Corrupt,
    /// A byte of the answer is missing.
    Lose,
    /// The answer ends early, as if it were complete.
    Truncate,
    /// Ends in the middle of the answer with a reset.
    Reset,
    /// A reset comes out as an end.
    Soften,
    /// Buffers all that is sent, whether or not the receiver reads (on all connections).
    Hoard,
    /// Never lets go of a connection.
    Hold,
}

const FAULTS: [(&str, Fault); 8] = [
    ("none", Fault::None),
    ("corrupt", Fault::Corrupt),
    ("lose", Fault::Lose),
    ("truncate", Fault::Truncate),
    ("reset", Fault::Reset),
    ("soften", Fault::Soften),
    ("hoard", Fault::Hoard),
    ("hold", Fault::Hold),
];

/// Relays until standard input ends.
pub(crate) async fn run(listen: SocketAddr, target: SocketAddr, fault: &str) -> io::Result<()> {
    let fault = FAULTS.into_iter().find(|(name, _)| *name == fault).expect("a fault that is known").1;
    let listener = TcpListener::bind(listen).await?;
    say(&json!({ "listen": listener.local_addr()?.to_string() }));
    tokio::spawn(async move {
        let number = Arc::<AtomicU64>::default();
        while let Ok((client, _)) = listener.accept().await {
            let every = number.fetch_add(1, Ordering::Relaxed);
            let here = matches!(fault, Fault::Hoard | Fault::Hold) || every % 10 == 3;
            let fault = if here { fault } else { Fault::None };
            tokio::spawn(connection(client, target, fault));
        }
    });
    let mut control = Control::new();
    while control.next().await.is_some() {
        say(&json!({}));
    }
    Ok(())
}

async fn connection(client: TcpStream, target: SocketAddr, fault: Fault) {
    if fault == Fault::Hold {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (client_reader, client_writer) = client.into_split();
    let (server_reader, server_writer) = server.into_split();
    let gently = if matches!(fault, Fault::Soften | Fault::Hoard) { fault } else { Fault::None };
    // The first error ends both directions, so that both sockets are closed.
    let (up, down) = (copy(client_reader, server_writer, gently), copy(server_reader, client_writer, fault));
    let _ended = tokio::try_join!(up, down);
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fault: Fault) -> io::Result<()> {
    if fault == Fault::Hoard {
        return hoard(from, to).await;
    }
    let mut chunk = vec![0; 16 * 1024];
    let mut first = true;
    loop {
        let read = match from.read(&mut chunk).await {
            Ok(read) => read,
            Err(_) if fault == Fault::Soften => 0,
            Err(error) => return reset(to, error),
        };
        if read == 0 {
            return to.shutdown().await;
        }
        let part = &mut chunk[..read];
        let last = part.len() - 1;
        match fault {
            Fault::Corrupt if first => {
                part[last] ^= 1;
                to.write_all(part).await?;
            }
            Fault::Lose if first => to.write_all(&part[..last]).await?,
            Fault::Truncate if first => {
                to.write_all(&part[..last]).await?;
                return to.shutdown().await;
            }
            Fault::Reset if first => {
                to.write_all(&part[..last]).await?;
                return reset(to, io::ErrorKind::ConnectionReset.into());
            }
            _ => to.write_all(part).await?,
        }
        first = false;
    }
}

async fn hoard(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let reader = async {
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut chunk).await?;
            if read == 0 || sender.send(chunk[..read].to_vec()).is_err() {
                drop(sender);
                return io::Result::Ok(());
            }
        }
    };
    let writer = async {
        while let Some(part) = receiver.recv().await {
            to.write_all(&part).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reader, writer).map(drop)
}

fn reset(to: OwnedWriteHalf, error: io::Error) -> io::Result<()> {
    to.as_ref().set_zero_linger()?;
    // Dropped without a FIN of its own; the reset comes when the other half goes as well.
    to.forget();
    Err(error)
}
