//! Finishes a rotation once no connection uses the old root.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::control::rotate;
use crate::rotation_status::RotationStatus;
use crate::step::{Request, Step};

/// Pause between two requests while connections are waited for.
const POLL: Duration = Duration::from_millis(500);

/// Finishes the rotation as soon as no connection rests on the old root, by reports of after the last certificate below it
/// has ended: no connection rests on it from then on that is not reported. Instances that do not report are not waited
/// for. Nothing is changed if that takes longer than `wait`.
///
/// # Errors
/// If no CA runs on the folder, or it does not answer.
pub fn finish_unused(dir: &Path, assume: &[String], wait: Duration) -> io::Result<RotationStatus> {
    let started = Instant::now();
    let request = |step| Request { step, assume: assume.to_vec() };
    let mut ended_at = None;
    loop {
        let mut status = rotate(dir, &request(Step::Status))?;
        let Some(found) = status.old_root_connections.as_ref().filter(|_| status.next == Some(Step::Finish)) else {
            return rotate(dir, &request(Step::Finish));
        };
        if status.seconds_left == 0 {
            let ended_at = *ended_at.get_or_insert(status.now_unix);
            let is_recent = |age: i64| status.now_unix.saturating_sub(age) > ended_at;
            if found.live == 0 && found.oldest_report_seconds.is_none_or(is_recent) {
                return rotate(dir, &request(Step::Finish));
            }
        }
        if started.elapsed() >= wait {
            status.refused = Some(if status.seconds_left > 0 {
                "certificates below the old root are still valid".to_owned()
            } else {
                format!(
                    "{} live connections of {} sidecars rest on the old root, or their last report is too old; without --wait they are reset",
                    found.live, found.sidecars
                )
            });
            return Ok(status);
        }
        thread::sleep(POLL.min(wait.saturating_sub(started.elapsed())));
    }
}
