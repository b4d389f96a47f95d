//! The Unix socket of the admin server: bound before the sandbox, removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use portcullis_config::AdminSocket;
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

/// The file of the socket. Dropping this removes it, unless another process has replaced it meanwhile.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Numbers are used again.
    made: (i64, i64),
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Listens. A socket that nobody listens on any more is replaced; anything else in its place is not.
pub(super) fn bind(socket: &AdminSocket) -> anyhow::Result<(UnixListener, SocketFile)> {
    let path = &socket.path;
    remove_stale(path)?;
    let listener = listen(path).with_context(|| not_bound(path))?;
    if socket.for_group {
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(|| not_bound(path))?;
    }
    let file = fs::symlink_metadata(path).with_context(|| not_bound(path))?;
    Ok((listener, SocketFile { path: path.clone(), device: file.dev(), inode: file.ino(), made: made(&file) }))
}

/// The file is never there with another mode than 0600, as it would be between a bind and a chmod: Linux takes the mode of the file
/// from the socket.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn not_bound(path: &Path) -> String {
    format!(
        "cannot listen on {}; its folder must exist, and the user of the proxy must be able to write it",
        path.display()
    )
}

/// When a socket was bound: nothing is ever written to its file.
fn made(file: &fs::Metadata) -> (i64, i64) {
    (file.mtime(), file.mtime_nsec())
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| not_bound(path)),
    };
    if !file.file_type().is_socket() {
        bail!("{} is there already, and is no socket; remove it, or name another path", path.display());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("cannot remove the stale socket {}", path.display()))
        }
        Ok(_) => bail!("cannot listen on {}: another process listens there", path.display()),
        Err(error) => Err(error).with_context(|| format!("cannot tell whether anybody listens on {}", path.display())),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours =
            |file: &fs::Metadata| file.dev() == self.device && file.ino() == self.inode && made(file) == self.made;
        if fs::symlink_metadata(&self.path).is_ok_and(|file| is_ours(&file))
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(socket = %self.path.display(), %error, "the admin socket is left behind; the next start replaces it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(path: PathBuf, for_group: bool) -> AdminSocket {
        AdminSocket { path, for_group }
    }

    #[test]
    fn the_socket_is_there_with_its_mode_and_gone_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        for (for_group, mode) in [(false, 0o600), (true, 0o660)] {
            let path = folder.path().join("admin.sock");
            let (listener, file) = bind(&socket(path.clone(), for_group)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
            assert!(UnixStream::connect(&path).is_ok());
            drop((listener, file));
            assert!(!path.exists());
        }
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = bind(&socket(path.clone(), false)).unwrap();
        let second = bind(&socket(path.clone(), false)).unwrap_err();
        assert!(format!("{second:#}").contains("another process listens"), "{second:#}");
        drop(listener);
        // Replaced by another process: not ours to remove.
        let (_other, _file) = bind(&socket(path.clone(), false)).unwrap();
        drop(file);
        assert!(path.exists());
        let plain = folder.path().join("notes.txt");
        fs::write(&plain, "x").unwrap();
        assert!(bind(&socket(plain.clone(), false)).unwrap_err().to_string().contains("no socket"));
        assert!(plain.exists() && bind(&socket(folder.path().join("none/a.sock"), false)).is_err());
    }
}
