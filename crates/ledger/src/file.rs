//! The file: JSON, one value a line. A head, then each observation as `/observations` shows it.
//!
//! The head says how many follow, so a file that was cut is noticed.

use std::borrow::Cow;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use portcullis_api::{Client, Observation, RefusedFor, Timestamp};
use portcullis_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::entry::{Facts, LastRefusal};
use crate::key::{Key, PeerKey};
use crate::ledger::{Ledger, lock};
use crate::snapshot::observation;

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
const KIND: &str = "portcullis-ledger";
/// A line is longer than that only in a file that something else wrote.
const MAX_LINE: u64 = 64 * 1024;

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    kind: String,
    version: u32,
    workload: String,
    since: Timestamp,
    observed_seconds: u64,
    evicted: u64,
    observations: usize,
}

/// The part of a head that every version has.
#[derive(Deserialize)]
struct AnyHead {
    kind: String,
    version: u32,
}

/// What a file says.
#[derive(Debug)]
pub(crate) struct Saved {
    since: Timestamp,
    observed_seconds: u64,
    evicted: u64,
    entries: Vec<SavedEntry>,
}

#[derive(Debug)]
struct SavedEntry {
    key: Key,
    facts: Facts,
    last_seen: i64,
    received: u64,
    sent: u64,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("line {line}: {why}")]
    Damaged { line: usize, why: String },
    #[error("it has version {0}, and this program reads versions up to {VERSION}")]
    Newer(u32),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Writes the table.
pub(crate) fn write(ledger: &Ledger, workload: &str, out: &mut impl Write) -> io::Result<()> {
    let entries = ledger.entries();
    let head = Head {
        kind: KIND.to_owned(),
        version: VERSION,
        workload: workload.to_owned(),
        since: ledger.since(),
        observed_seconds: ledger.observed_seconds(),
        evicted: ledger.evicted(),
        observations: entries.len(),
    };
    serde_json::to_writer(&mut *out, &head)?;
    out.write_all(b"\n")?;
    let today = Timestamp::from_unix(ledger.clock().now_unix()).day();
    for entry in entries {
        serde_json::to_writer(&mut *out, &observation(&entry, today))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads a table.
pub(crate) fn read(input: impl BufRead) -> Result<Saved, Unusable> {
    let mut lines = Lines { input, line: 0 };
    let text = lines.next()?.ok_or_else(|| lines.damaged("the file is empty"))?;
    let any: AnyHead = serde_json::from_slice(&text).map_err(|error| lines.damaged(error))?;
    if any.kind != KIND {
        return Err(lines.damaged("this is no ledger"));
    }
    if any.version > VERSION {
        return Err(Unusable::Newer(any.version));
    }
    let head: Head = serde_json::from_slice(&text).map_err(|error| lines.damaged(error))?;
    let mut entries = Vec::new();
    while let Some(text) = lines.next()? {
        let observation: Observation = serde_json::from_slice(&text).map_err(|error| lines.damaged(error))?;
        entries.push(SavedEntry::of(observation).map_err(|error| lines.damaged(error))?);
    }
    if entries.len() != head.observations {
        return Err(lines.damaged(format!("{} observations of {}", entries.len(), head.observations)));
    }
    let Head { since, observed_seconds, evicted, .. } = head;
    Ok(Saved { since, observed_seconds, evicted, entries })
}

struct Lines<R> {
    input: R,
    line: usize,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Unusable> {
        let mut text = Vec::new();
        self.line = self.line.saturating_add(1);
        if io::Read::take(&mut self.input, MAX_LINE).read_until(b'\n', &mut text)? == 0 {
            return Ok(None);
        }
        if text.last() != Some(&b'\n') {
            return Err(self.damaged("the line does not end"));
        }
        Ok(Some(text))
    }

    fn damaged(&self, why: impl ToString) -> Unusable {
        Unusable::Damaged { line: self.line, why: why.to_string() }
    }
}

impl SavedEntry {
    fn of(observation: Observation) -> Result<Self, String> {
        let Observation { direction, port, transport, peer, allowed, refused, .. } = observation;
        let Client { identity, address, name, service, dialled, server_name } = peer;
        let peer = match (identity, address) {
            (Some(id), _) => PeerKey::Identity(SpiffeId::parse(&id).map_err(|error| format!("{id:?}: {error}"))?),
            (None, Some(address)) => PeerKey::Address(address),
            (None, None) => PeerKey::Unknown,
        };
        let last_refusal = observation.last_refusal.map(|RefusedFor { reason, policy, at }| LastRefusal {
            reason: Cow::Owned(reason),
            policy: policy.into(),
            at: at.unix(),
        });
        let mut days = observation.days;
        days.sort_unstable_by_key(|count| count.day);
        days.dedup_by_key(|count| count.day);
        let facts = Facts {
            allowed,
            refused,
            first_seen: observation.first_seen.unix(),
            last_refusal,
            days,
            address,
            dialled,
            name: name.map(Arc::from),
            service: service.map(Arc::from),
            server_name: server_name.map(String::into_boxed_str),
        };
        let last_seen = observation.last_seen.unix();
        let (received, sent) = (observation.bytes_received, observation.bytes_sent);
        Ok(Self { key: Key { direction, port, transport, peer }, facts, last_seen, received, sent })
    }
}

impl Ledger {
    /// Adds what was seen before this process. Connections that were counted meanwhile stay counted.
    pub(crate) fn merge(&self, saved: Saved) {
        let Saved { since, observed_seconds, evicted, mut entries } = saved;
        {
            let mut history = lock(&self.0.history);
            history.since = history.since.min(since.unix());
            history.observed_before = history.observed_before.saturating_add(observed_seconds);
        }
        self.0.evicted.fetch_add(evicted, Ordering::Relaxed);
        // If there is not enough room, those that were seen last are kept.
        entries.sort_by_key(|entry| entry.last_seen);
        for SavedEntry { key, facts, last_seen, received, sent } in entries {
            let entry = self.insert(key, facts.first_seen, last_seen);
            entry.last_seen.fetch_max(last_seen, Ordering::Relaxed);
            entry.received.fetch_add(received, Ordering::Relaxed);
            entry.sent.fetch_add(sent, Ordering::Relaxed);
            entry.facts().merge(facts);
        }
        self.mark(true);
    }
}
