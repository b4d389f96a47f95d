//! What a client is told that speaks plaintext HTTP/1 where mTLS is required, if the configuration wants that: one answer,
//! so that whoever looks at it knows what it means that the connection is closed. It names no policy and no workload, since
//! nobody knows who reads it.

use std::io;
use std::time::Duration;

use portcullis_wire::http1::{RequestLine, request_line};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// How long the client has for the rest of what it sends: with unread bytes, closing is a reset, which would take the answer
/// from it.
const LINGER: Duration = Duration::from_secs(2);
/// The most that is read and thrown away meanwhile.
const LINGER_BYTES: usize = 8 << 20;
const READ_SIZE: usize = 8192;

const TEXT: &str = "Mutual TLS is required here. Connect from inside the mesh, through a sidecar.\n";

/// Answers if `seen` is, or becomes before `deadline`, the first line of a request. The stream is to be dropped then; what
/// it returns is of no interest, since the connection is refused either way.
pub(crate) async fn answer(stream: &mut TcpStream, mut seen: Vec<u8>, deadline: Instant) -> io::Result<()> {
    let head = loop {
        match request_line(&seen) {
            RequestLine::Whole { head } => break head,
            RequestLine::Other => return Ok(()),
            RequestLine::Partial if timeout_at(deadline, stream.read_buf(&mut seen)).await?? == 0 => return Ok(()),
            RequestLine::Partial => {}
        }
    };
    let deadline = deadline.min(Instant::now() + LINGER);
    timeout_at(deadline, stream.write_all(response(head).as_bytes())).await??;
    stream.shutdown().await?;
    let (mut rest, mut left) = (Vec::with_capacity(READ_SIZE), LINGER_BYTES);
    while left > 0 {
        rest.clear();
        match timeout_at(deadline, stream.read_buf(&mut rest)).await?? {
            0 => return Ok(()),
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

/// 403, since this client may not come here at all, and trying again changes nothing. 426 would have to name a protocol to
/// upgrade to on this connection, which we do not offer; 400 would say that the request is wrong, and clients try again on
/// 421 and 503.
fn response(head: bool) -> String {
    let body = if head { "" } else { TEXT };
    format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        TEXT.len()
    )
}
