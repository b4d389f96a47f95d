//! The response to plaintext HTTP/1 on a STRICT port, if `inbound.httpHint` asks for it: one fixed response that explains why
//! the connection is closed. It names no policy and no workload, since its reader is not authenticated.

use std::io;
use std::time::Duration;

use portcullis_wire::http1::{RequestLine, request_line};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// How long the rest of what the client sends is read: with unread bytes, a close is a reset, which would discard the
/// response.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it is read and discarded at most.
const LINGER_BYTES: usize = 8 << 20;
const READ_SIZE: usize = 8192;

const TEXT: &str = "Mutual TLS is required here. Connect from inside the mesh, through a sidecar.\n";

/// Responds if `seen` is the first line of a request, or becomes one before `deadline`. The stream is to be dropped then. The
/// result does not matter, since the connection is refused either way.
pub(crate) async fn respond(stream: &mut TcpStream, mut seen: Vec<u8>, deadline: Instant) -> io::Result<()> {
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

/// 403, since this client is not allowed here at all, and a retry changes nothing. 426 would have to name a protocol to upgrade
/// to on this connection, which we do not offer; 400 would blame the request, and clients retry on 421 and 503.
fn response(head: bool) -> String {
    let body = if head { "" } else { TEXT };
    format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        TEXT.len()
    )
}
