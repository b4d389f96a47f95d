//! Reads the ports of a ServiceEntry.

use std::collections::HashSet;
use std::sync::Arc;

use portcullis_yaml::{Cursor, Fields, Problems, printable};

use crate::directory::ports::{PortSpec, Protocol};
use crate::directory::read;
use crate::directory::service_entry::Resolution;
use crate::metadata::is_dns_label;

/// Whether an entry must list its ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PortList {
    /// As in Istio.
    Required,
    /// Without a list it is every port. For entries that a program writes, which does not know on which ports an app listens.
    Optional,
}

/// Reads `spec.ports`; without a known resolution it is not asked what goes with it.
pub(super) fn read(
    fields: &Fields<'_>,
    resolution: Option<Resolution>,
    list: PortList,
    problems: &mut Problems,
) -> Vec<PortSpec> {
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    let mut ports = Vec::new();
    if list == PortList::Optional && fields.get("ports").is_none() {
        return Vec::new();
    }
    for at in read::required_items(fields, "ports", problems) {
        let Some(port) = read_port(&at, resolution, problems) else { continue };
        if !numbers.insert(port.number) {
            let message = format!("port {} is in this list already; remove one", port.number);
            at.report("duplicate-port", message, problems);
        }
        if !names.insert(Arc::clone(&port.name)) {
            let message = format!("\"{}\" names another port of this list already; rename one", printable(&port.name));
            at.report("duplicate-port", message, problems);
        }
        ports.push(port);
    }
    ports
}

fn read_port(at: &Cursor<'_>, resolution: Option<Resolution>, problems: &mut Problems) -> Option<PortSpec> {
    let fields = at.fields(&["number", "name", "protocol", "targetPort"], problems)?;
    let number = fields.require("number", problems).and_then(|at| read::port(&at, problems));
    let name = fields.require("name", problems).and_then(|at| {
        let name = at.string(problems)?;
        if !is_dns_label(name) {
            let message =
                format!("\"{}\" is not the name of a port; use lower-case letters, digits and '-'", printable(name));
            at.report("invalid-port-name", message, problems);
        }
        Some(Arc::from(name))
    });
    let protocol = fields.get("protocol").map(|at| read_protocol(&at, problems));
    let target = fields.get("targetPort");
    if let (Some(at), Some(Resolution::None)) = (&target, resolution) {
        let message = "is not supported with resolution NONE, where the dialled address is kept; remove it, or name \
                       endpoints";
        at.report(read::UNSUPPORTED_FIELD, message, problems);
    }
    let target_port = target.and_then(|at| read::port(&at, problems));
    Some(PortSpec { number: number?, name: name?, protocol: protocol.flatten().unwrap_or_default(), target_port })
}

fn read_protocol(at: &Cursor<'_>, problems: &mut Problems) -> Option<Protocol> {
    let text = at.string(problems)?;
    // Istio does not look at the letter case either.
    let found = Protocol::ALL.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if found.is_none() {
        let names: Vec<&str> = Protocol::ALL.into_iter().map(|(name, _)| name).collect();
        let hint = if text.eq_ignore_ascii_case("UDP") {
            "UDP is neither captured nor secured"
        } else {
            "all are carried as bytes"
        };
        let message =
            format!("\"{}\" is not a supported protocol; {hint}; write one of {}", printable(text), names.join(", "));
        at.report("unsupported-protocol", message, problems);
    }
    found.map(|(_, protocol)| protocol)
}
