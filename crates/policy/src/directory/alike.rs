//! Numbers for how endpoints are reached: two lists with one number are reached alike.
//!
//! Two services may claim one destination, such as two hosts on one address. They are one as long as it does not matter which of
//! them answers.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_identity::SpiffeId;

use crate::directory::service::{Endpoint, ServicePort};
use crate::directory::transport::{OriginationMode, Transport};

/// What counts. The server name of the mesh does not: it is only sent, and nothing depends on it.
#[derive(Eq, Hash, PartialEq)]
enum Security {
    Plaintext,
    Mtls(Option<Vec<SpiffeId>>),
    Originate { mode: OriginationMode, ca: Option<Arc<str>>, names: Vec<String>, sni: Option<Arc<str>> },
}

impl Security {
    fn new(transport: &Transport) -> Self {
        match transport {
            Transport::Plaintext(_) => Self::Plaintext,
            Transport::Mtls { identities, .. } => {
                Self::Mtls(identities.as_ref().ok().map(|ids| ids.iter().cloned().collect()))
            }
            Transport::Originate(origination) => Self::Originate {
                mode: origination.mode.clone(),
                ca: origination.ca.clone(),
                names: origination.subject_alt_names.clone(),
                sni: origination.sni.clone(),
            },
        }
    }
}

/// Assigns a number to each way in which endpoints are reached.
#[derive(Default)]
pub(super) struct Alike {
    single: HashMap<(Option<u16>, Security), u32>,
    lists: HashMap<Vec<u32>, u32>,
}

impl Alike {
    /// Of endpoints of a service port: any order, and repetitions count once.
    pub(super) fn endpoints(&mut self, endpoints: &[Arc<Endpoint>]) -> u32 {
        let mut list: Vec<u32> =
            endpoints.iter().map(|endpoint| self.single(Some(endpoint.port), &endpoint.transport)).collect();
        list.sort_unstable();
        list.dedup();
        let next = number(self.lists.len());
        *self.lists.entry(list).or_insert(next)
    }

    /// Of a whole port.
    pub(super) fn port(&mut self, port: &ServicePort) -> u32 {
        match &port.original {
            Some(transport) => self.original(transport),
            None => self.endpoints(&port.endpoints),
        }
    }

    /// Of a destination that is kept.
    fn original(&mut self, transport: &Transport) -> u32 {
        let list = vec![self.single(None, transport)];
        let next = number(self.lists.len());
        *self.lists.entry(list).or_insert(next)
    }

    fn single(&mut self, port: Option<u16>, transport: &Transport) -> u32 {
        let next = number(self.single.len());
        *self.single.entry((port, Security::new(transport))).or_insert(next)
    }
}

/// There are never as many as 2^32; if there were, the last ones would be called alike, and a list of so many fits no memory.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
