//! The end of a record: counters, and one access-log line.

use std::borrow::Cow;
use std::thread;

use crate::connection::Direction;
use crate::outcome::{Decision, Ending, PANIC, ResponseFlag, SHUTDOWN};
use crate::record::ConnRecord;
use crate::{access, panics};

impl ConnRecord {
    /// Closes the record: counters and one access-log line.
    pub fn finish(mut self, ending: &Ending) {
        self.end(ending);
    }

    fn end(&mut self, ending: &Ending) {
        if self.ended {
            return;
        }
        self.ended = true;
        if let Some(gauge) = self.metrics.open.get(self.direction as usize) {
            gauge.dec();
        }
        let admitted = self.admitted.take();
        match &admitted {
            Some(open) => {
                open.flush();
                self.metrics.tcp.open().remove(self.id);
                open.edge.closed(ending.flag);
                self.observe_cut(open, ending);
            }
            // Who went away by itself was neither refused nor failed.
            None if ending.flag == ResponseFlag::Abandoned => {}
            None => self.edge().failed(ending.flag),
        }
        if admitted.is_none() {
            self.observe_refusal(ending);
        }
        self.count(ending);
        access::write(self, ending, admitted.is_some());
        self.keep(ending);
    }

    fn count(&self, ending: &Ending) {
        let metrics = &self.metrics;
        let port = self.port.map_or(Cow::Borrowed("-"), |port| metrics.ports.label(port));
        let decision = ending.decision.as_str();
        let labels = [&*port, self.mode, decision, ending.reason, &*self.policy, self.transport];
        metrics.decisions.with(&labels).add(1);
        if self.direction == Direction::Inbound && self.peer.is_none() {
            metrics.no_mtls.with(&[self.no_mtls.unwrap_or(ending.reason)]).add(1);
        }
    }
}

impl Drop for ConnRecord {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let ending = if thread::panicking() {
            self.metrics.panics.with(&[self.direction.reporter()]).add(1);
            Ending::new(&PANIC, panics::location())
        } else {
            let decision = if self.admitted.is_some() { Decision::Allow } else { Decision::Deny };
            Ending { decision, ..Ending::new(&SHUTDOWN, None) }
        };
        self.end(&ending);
    }
}
