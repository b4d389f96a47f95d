//! Installs a table in the kernel, removes it, and reads back what is installed.

use std::io;

use thiserror::Error;

use crate::attributes::{Attribute, find, holds};
use crate::netlink::{APPEND, CREATE, Message, Netlink, NetlinkError};
use crate::table::{Chain, Rule, Table};
use crate::{capture, expressions};

/// `NFT_MSG_*`.
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
/// `NFTA_TABLE_NAME`; also `NFTA_CHAIN_TABLE` and `NFTA_RULE_TABLE`.
const TABLE: u16 = 1;
/// `NFTA_TABLE_FLAGS`; a table may be dormant, for one.
const TABLE_FLAGS: u16 = 2;
/// `NFTA_CHAIN_NAME`, `..HOOK`, `..POLICY`, `..TYPE`.
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
/// `NFTA_RULE_CHAIN`, `NFTA_RULE_EXPRESSIONS`.
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

/// Why the rules could not be changed or read. Nothing was changed then.
#[derive(Debug, Error)]
pub enum InstallError {
    /// A capability is missing.
    #[error("permission denied: this needs CAP_NET_ADMIN in this network namespace ({what})")]
    NotPermitted {
        /// What was refused.
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel does not support it.
    #[error(
        "the kernel has no nftables NAT for IPv4 and IPv6 in one table: it takes Linux 5.2 with nf_tables and nft_redir ({what})"
    )]
    NotSupported {
        /// What was refused.
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Anything else.
    #[error("the kernel refused {what}: {source}")]
    Refused {
        /// What was refused.
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// What the kernel holds, compared with a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Installed {
    /// Exactly that.
    AsPlanned,
    /// There is no table of that name.
    Missing,
    /// There is one, but not that; what differs first.
    Different(String),
}

/// Replaces any table of this name in one transaction: no connection escapes in between. Idempotent.
///
/// # Errors
/// [`InstallError`]; the rules that were there before stay.
pub fn install(table: &Table) -> Result<(), InstallError> {
    let (mut messages, mut what) = emptied(table.name);
    messages.push(Message { kind: NEWTABLE, flags: CREATE, attributes: vec![named(table.name)] });
    what.push(format!("table inet {}", table.name));
    for chain in &table.chains {
        messages.push(Message { kind: NEWCHAIN, flags: CREATE, attributes: chain_attributes(table.name, chain) });
        what.push(format!("chain {}", chain.name));
        for rule in &chain.rules {
            let attributes = rule_attributes(table.name, chain, rule);
            messages.push(Message { kind: NEWRULE, flags: CREATE | APPEND, attributes });
            what.push(format!("rule \"{rule}\" of chain {}", chain.name));
        }
    }
    transact(&messages, &what)
}

/// Removes our table, if it is there.
///
/// # Errors
/// [`InstallError`]; nothing is removed then.
pub fn remove() -> Result<(), InstallError> {
    let (messages, what) = emptied(capture::TABLE);
    transact(&messages, &what)
}

/// Compares this table with the one that the kernel holds.
///
/// # Errors
/// [`InstallError`], if it does not answer.
pub fn installed(table: &Table) -> Result<Installed, InstallError> {
    let asked = |refusal: NetlinkError, what: &str| install_error(refusal.error, format!("to list {what}"));
    let netlink = Netlink::open().map_err(|error| install_error(error, "a netlink socket".to_owned()))?;
    let ours = |attributes: &Vec<u8>| holds(attributes, &[named(table.name)]);
    let tables = netlink.dump(GETTABLE, &[]).map_err(|refusal| asked(refusal, "tables"))?;
    match tables.iter().find(|attributes| ours(attributes)) {
        None => return Ok(Installed::Missing),
        Some(there) if !holds(there, &[Attribute::number(TABLE_FLAGS, 0)]) => {
            return Ok(Installed::Different(format!("table inet {} has flags, such as dormant", table.name)));
        }
        Some(_) => {}
    }
    let chains = netlink.dump(GETCHAIN, &[]).map_err(|refusal| asked(refusal, "chains"))?;
    let rules = netlink.dump(GETRULE, &[named(table.name)]).map_err(|refusal| asked(refusal, "rules"))?;
    let chains: Vec<_> = chains.into_iter().filter(ours).collect();
    let rules: Vec<_> = rules.into_iter().filter(ours).collect();
    Ok(compare(table, &chains, &rules).map_or(Installed::AsPlanned, Installed::Different))
}

/// The first difference.
fn compare(table: &Table, chains: &[Vec<u8>], rules: &[Vec<u8>]) -> Option<String> {
    for chain in &table.chains {
        let there = chains.iter().find(|there| holds(there, &[Attribute::text(CHAIN_NAME, chain.name)]));
        let Some(there) = there else { return Some(format!("there is no chain {}", chain.name)) };
        if !holds(there, &chain_attributes(table.name, chain)) {
            return Some(format!("chain {} is not: {}", chain.name, chain.hook));
        }
        let name = Attribute::text(RULE_CHAIN, chain.name);
        let mut of_chain = rules.iter().filter(|rule| holds(rule, std::slice::from_ref(&name)));
        for rule in &chain.rules {
            let as_planned = of_chain.next().is_some_and(|there| is_rule(there, rule));
            if !as_planned {
                return Some(format!("chain {} has no rule \"{rule}\" in its place", chain.name));
            }
        }
        if of_chain.next().is_some() {
            return Some(format!("chain {} has more rules than planned", chain.name));
        }
    }
    (chains.len() > table.chains.len()).then(|| "there are more chains than planned".to_owned())
}

fn is_rule(there: &[u8], rule: &Rule) -> bool {
    find(there, RULE_EXPRESSIONS).is_some_and(|steps| holds(steps, &expressions::of(rule)))
}

/// Creates the table and deletes it in one transaction: this works on every kernel, whether the table exists or not.
fn emptied(name: &str) -> (Vec<Message>, Vec<String>) {
    let message = |kind, flags| Message { kind, flags, attributes: vec![named(name)] };
    let what = ["to make", "to remove"].map(|verb| format!("{verb} table inet {name}"));
    (vec![message(NEWTABLE, CREATE), message(DELTABLE, 0)], what.into())
}

fn transact(messages: &[Message], what: &[String]) -> Result<(), InstallError> {
    let netlink = Netlink::open().map_err(|error| install_error(error, "a netlink socket".to_owned()))?;
    netlink.transact(messages).map_err(|NetlinkError { message, error }| {
        let what = message.and_then(|index| what.get(index)).cloned();
        install_error(error, what.unwrap_or_else(|| "the whole change".to_owned()))
    })
}

fn install_error(source: io::Error, what: String) -> InstallError {
    use rustix::io::Errno;
    match Errno::from_io_error(&source) {
        Some(Errno::PERM | Errno::ACCESS) => InstallError::NotPermitted { what, source },
        // A chain type, an expression or the whole family that the kernel lacks.
        Some(Errno::OPNOTSUPP | Errno::NOENT | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT) => {
            InstallError::NotSupported { what, source }
        }
        _ => InstallError::Refused { what, source },
    }
}

fn named(table: &str) -> Attribute {
    Attribute::text(TABLE, table)
}

fn chain_attributes(table: &str, chain: &Chain) -> Vec<Attribute> {
    let hook = [
        // NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY
        Attribute::number(1, chain.hook.number()),
        Attribute::bytes(2, &chain.hook.priority().to_be_bytes()),
    ];
    vec![
        named(table),
        Attribute::text(CHAIN_NAME, chain.name),
        Attribute::nested(CHAIN_HOOK, hook),
        Attribute::number(CHAIN_POLICY, ACCEPT),
        Attribute::text(CHAIN_TYPE, chain.hook.kind()),
    ]
}

fn rule_attributes(table: &str, chain: &Chain, rule: &Rule) -> Vec<Attribute> {
    vec![
        named(table),
        Attribute::text(RULE_CHAIN, chain.name),
        Attribute::nested(RULE_EXPRESSIONS, expressions::of(rule)),
    ]
}
