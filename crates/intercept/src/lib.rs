//! Transparent capture: which connections the kernel hands to the sidecar, as nftables rules.
//!
//! What is wanted ([`Capture`]) becomes a table of rules ([`Table`]), which can be shown as `nft` prints it, installed in
//! one transaction over netlink, read back and compared, and removed. There is no `nft` program in a `scratch` image, so
//! none is called. The crate knows nothing of policy: what is captured is judged by the proxy.
//!
//! The rules do not depend on a living proxy. Where nobody listens on the capture port, the kernel resets the connection:
//! no proxy, no traffic (R43).

mod attributes;
mod capture;
mod expressions;
mod kernel;
mod netlink;
mod port;
pub mod probe;
mod table;

pub use self::capture::{Capture, Inbound, Outbound, ParseError, Selection, list};
pub use self::kernel::{InstallError, Installed, install, installed, remove};
pub use self::port::{Interface, Port};
pub use self::table::{Chain, Hook, Match, Rule, Table, Verdict};
