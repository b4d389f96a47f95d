//! Attempts without TLS: a request whose first byte goes alone, and silence.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Duration;

use crate::connection::Connection;
use crate::observation::{End, Observation, Stage};

/// How long more bytes are waited for once there are some.
pub(crate) const SETTLE: Duration = Duration::from_millis(200);
/// How many bytes of an answer are kept.
pub(crate) const KEPT: usize = 1024;
/// How long the first byte stands alone, at least.
const ALONE: Duration = Duration::from_millis(300);

/// Sends the first byte, then the rest, then ends its direction; each time it waits for an answer.
///
/// A sidecar that wants TLS knows by the first byte that this is none. An app waits for the rest of the request, so an end after one
/// byte is the sidecar's.
pub(crate) fn request(connection: &mut Connection, request: &[u8]) -> Observation {
    let (first, rest) = request.split_at_checked(1).unwrap_or((request, &[]));
    let (alone, third) = (ALONE.max(connection.round_trip.saturating_mul(4)), connection.third());
    let mut bytes = Vec::new();
    let steps = [(Stage::FirstByte, first, alone.min(third)), (Stage::Request, rest, third)];
    for (stage, part, time) in steps {
        // A server that has closed or reset says so when it is read.
        let _gone = connection.write_all(part);
        connection.wait(time);
        if let Some(end) = read(connection, &mut bytes) {
            return Observation { bytes, ..Observation::ended(stage, end) };
        }
    }
    connection.half_close();
    connection.wait_to_the_end();
    let end = read(connection, &mut bytes).unwrap_or(End::Silent);
    Observation { bytes, ..Observation::ended(Stage::HalfClosed, end) }
}

/// Sends nothing.
pub(crate) fn silence(connection: &mut Connection) -> Observation {
    let mut bytes = Vec::new();
    connection.wait_to_the_end();
    let end = read(connection, &mut bytes).unwrap_or(End::Silent);
    Observation { bytes, ..Observation::ended(Stage::Opening, end) }
}

/// Reads until there is an answer or an end; `None` if neither comes in time.
fn read(connection: &mut Connection, bytes: &mut Vec<u8>) -> Option<End> {
    let mut buffer = [0; KEPT];
    loop {
        let end = match connection.read(&mut buffer) {
            Ok(0) => End::Closed,
            Ok(count) => {
                bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                connection.wait(SETTLE);
                if bytes.len() < KEPT {
                    continue;
                }
                End::Answered
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::TimedOut && bytes.is_empty() => return None,
            Err(error) if error.kind() == ErrorKind::TimedOut => End::Answered,
            Err(error) => reset_or_broken(&error),
        };
        return Some(end);
    }
}

/// What an error of the socket says.
pub(crate) fn reset_or_broken(error: &std::io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => End::Reset,
        _ => End::Broken(error.to_string()),
    }
}
