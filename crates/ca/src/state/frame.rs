//! One line of a state file: eight digits of a checksum, a space, JSON without a line break.
//!
//! A power cut can leave a line half written, or with zeros in it; the checksum tells that from a line that is whole.

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a value as one line.
pub(super) fn write(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_string(value)?;
    Ok(format!("{} {json}\n", sum(json.as_bytes())).into_bytes())
}

/// Reads one line, without its line break. `None` if it is not whole.
pub(super) fn read<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (head, json) = line.split_at_checked(9)?;
    (head == format!("{} ", sum(json)).as_bytes()).then(|| serde_json::from_slice(json).ok())?
}

fn sum(json: &[u8]) -> String {
    crate::hex::text(digest(&SHA256, json).as_ref().get(..4).unwrap_or_default())
}
