//! What a record tells the ledger, and what is kept of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portcullis_ledger::{ConnAttributes, Observed, RefusalCause};

use crate::connection::Direction;
use crate::facts::ServerName;
use crate::open::Open;
use crate::outcome::{Decision, Ending, LOOP, ResponseFlag};
use crate::recent::{Ended, transport};
use crate::record::ConnRecord;

/// Bytes of the details of a failure, of which a peer may choose a part.
const MAX_ERROR: usize = 512;

impl ConnRecord {
    /// The connection was let through.
    pub(crate) fn observe(&self) -> Observed {
        self.metrics.ledger.allow(&self.seen(self.port.unwrap_or_default()))
    }

    /// The open connection was ended by a change of policy or trust.
    pub(crate) fn observe_cut(&self, open: &Open, ending: &Ending) {
        if ending.decision == Decision::Deny && ending.flag == ResponseFlag::Deny {
            open.observed.cut(&self.refusal(ending));
        }
    }

    /// The connection was not let through.
    pub(crate) fn observe_refusal(&self, ending: &Ending) {
        // Over a limit before anything was read, or at a listener that is for redirected connections only.
        let Some(port) = self.port else { return };
        let was_decided = match ending.flag {
            // It went away by itself, or the process did.
            ResponseFlag::Abandoned | ResponseFlag::None => false,
            ResponseFlag::Deny | ResponseFlag::Connect | ResponseFlag::TlsFailure | ResponseFlag::IdentityError => true,
        };
        // The addresses are those of the listener until a server is chosen.
        let has_no_server = self.is_from_outside() && self.mode == "-";
        if was_decided && ending.reason != LOOP && !has_no_server {
            self.metrics.ledger.refuse(&self.seen(port), &self.refusal(ending));
        }
    }

    /// Keeps what the access log says, for `/recent`. Takes from the record what it owns: this is its end.
    pub(crate) fn keep(&mut self, ending: &Ending) {
        let server_name = match std::mem::take(&mut self.sni) {
            ServerName::Name(name) => Some(name.into_boxed_str()),
            ServerName::Unread | ServerName::Absent | ServerName::Unusable => None,
        };
        let ended = Ended {
            sequence: 0,
            id: self.id,
            at: self.metrics.ledger.clock().now_unix(),
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            direction: self.direction,
            src: self.src_addr,
            dst: self.dst_addr,
            peer: self.peer.take(),
            service: self.service.as_deref().map(|service| Arc::clone(service.host())),
            port: self.port,
            mode: self.mode,
            transport: self.transport,
            decision: ending.decision,
            flag: ending.flag,
            reason: ending.reason,
            hint: ending.hint,
            error: ending.error.as_deref().map(|error| shortened(error).into()),
            policy: Arc::clone(&self.policy),
            rule: self.rule,
            tls: self.tls.as_ref().map(|tls| [tls.version, tls.group, tls.cipher]),
            server_name,
            received: self.bytes.received.load(Ordering::Relaxed),
            sent: self.bytes.sent.load(Ordering::Relaxed),
        };
        self.metrics.recent.push(ended);
    }

    fn refusal(&self, ending: &Ending) -> RefusalCause<'_> {
        RefusalCause { reason: ending.reason, policy: &self.policy }
    }

    fn seen(&self, port: u16) -> ConnAttributes<'_> {
        let dst = self.dst_addr.map(|address| address.ip());
        let (address, dialled) = match self.direction {
            Direction::Inbound => (Some(self.src_addr.ip()), dst),
            Direction::Outbound => (dst, None),
        };
        ConnAttributes {
            direction: self.direction.into(),
            port,
            transport: transport(self.transport),
            identity: self.peer.as_ref(),
            address,
            dialled,
            service: self.service.as_deref().map(crate::Service::host),
            server_name: self.sni.name(),
        }
    }
}

/// The start of a text, up to [`MAX_ERROR`] bytes.
fn shortened(text: &str) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_ERROR).last();
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}
