//! Transparent capture: which connections the kernel hands to the sidecar, as nftables rules.
//!
//! A [`Capture`] becomes a table of rules ([`Table`]), which can be printed as `nft` prints it, installed in one transaction
//! over netlink, read back and compared, and removed. A `scratch` image has no `nft` program, so none is called. The crate
//! does not depend on policy: the proxy decides what happens to a captured connection.
//!
//! The rules stay when the proxy ends. While nothing listens on the capture port, the kernel resets captured connections: no
//! proxy, no traffic.

mod attributes;
mod capture;
mod expressions;
mod kernel;
mod netlink;
mod parse;
mod port;
pub mod probe;
mod table;

pub use self::capture::{Capture, Inbound, Outbound, Selection};
pub use self::kernel::{InstallError, Installed, install, installed, remove};
pub use self::parse::{ParseError, list};
pub use self::port::{Interface, Port};
pub use self::table::{Chain, Hook, Match, Rule, Table, Verdict};
