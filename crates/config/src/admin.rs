//! The section `admin`.

use std::net::SocketAddr;
use std::path::PathBuf;

use portcullis_yaml::{Cursor, Problems};

use crate::fields::{SectionReader, section};
use crate::value;

/// `admin.socket` and `admin.socketMode`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminSocket {
    /// Its path.
    pub path: PathBuf,
    /// Whether the group of the proxy may connect as well as its user: mode 0660 instead of 0600.
    pub for_group: bool,
}

/// `admin`.
#[derive(Default)]
pub(crate) struct Admin {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) socket: Option<AdminSocket>,
    pub(crate) token_file: Option<PathBuf>,
}

impl SectionReader<'_> {
    pub(crate) fn admin(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<Admin> {
        let fields = at.fields(&["listen", "socket", "socketMode", "tokenFile"], problems)?;
        let listen = section(&fields, "listen", None, problems, |at, p| value::socket_addr(at, p).map(Some));
        let socket = section(&fields, "socket", None, problems, |at, p| self.path(at, p).map(Some));
        let modes = [("0600", false), ("0660", true)];
        let for_group = section(&fields, "socketMode", false, problems, |at, p| value::word(at, &modes, p));
        let token_file = section(&fields, "tokenFile", None, problems, |at, p| self.path(at, p).map(Some));
        let (listen, path) = (listen?, socket?);
        if listen.is_none() && path.is_none() {
            let message = "needs listen or socket: there is no admin server without an address";
            at.report("missing-field", message.to_owned(), problems);
            return None;
        }
        if let (None, Some(at)) = (&path, fields.get("socketMode")) {
            value::invalid(&at, "has no effect without admin.socket", problems);
            return None;
        }
        let for_group = for_group?;
        Some(Admin { listen, socket: path.map(|path| AdminSocket { path, for_group }), token_file: token_file? })
    }
}
