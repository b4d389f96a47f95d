//! The web page that answers in one screen whether all traffic is mTLS, and if not, why.
//!
//! [`view`] merges the answers of sidecars, a [`View`] is what is shown, [`page`] makes HTML and SVG of it. The server sends the page, its [`SCRIPT`], and a [`fragment`] for
//! each change. Nothing comes from another host: [`CONTENT_SECURITY_POLICY`] allows no other source. Without the script the page is
//! complete, and stands still.

mod build;
mod headline;
mod html;
mod layout;
mod page;
mod svg;
mod view;

pub use build::{Sidecar, view};
pub use page::{Frame, MAX_PAGE_BYTES, fragment, page};
pub use view::{Certificate, Change, Edge, Lock, Node, PlaintextClient, Port, PortStatus, Refused, View};

/// The script of the page, for `/dashboard.js`.
pub const SCRIPT: &str = include_str!("script.js");

/// The value of the header `Content-Security-Policy`. Styles are in the page; the script is this server's.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
