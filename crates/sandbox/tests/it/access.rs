//! What a restricted thread can still do. Landlock restricts threads, so each test restricts a thread of its own.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use portcullis_sandbox::access::{Access, Outcome, Step, restrict};

/// Runs `work` in a thread that has only this left; skips it, and says so, where the kernel cannot restrict it.
fn confined(access: &Access, step: impl FnOnce(&Outcome) -> &Step + Send, work: impl FnOnce() + Send) {
    let confined = || {
        let outcome = restrict(access);
        eprintln!("{outcome}");
        match step(&outcome) {
            Step::Nothing(why) => eprintln!("SKIPPED: {why}"),
            Step::Whole | Step::Partly => work(),
        }
    };
    thread::scope(|scope| scope.spawn(confined).join().unwrap());
}

fn files(outcome: &Outcome) -> &Step {
    &outcome.files
}

fn ports(outcome: &Outcome) -> &Step {
    &outcome.ports
}

fn reading(paths: &[&Path]) -> Access {
    Access { read: paths.iter().map(|path| (*path).to_owned()).collect(), ..Access::default() }
}

fn dialling(ports: &[u16]) -> Access {
    let connect = Some(ports.iter().copied().collect());
    Access { read: BTreeSet::from([PathBuf::from("/proc")]), connect, ..Access::default() }
}

fn denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[test]
fn landlock_blocks_read_etc_shadow() {
    // Only root can read this file without the sandbox; another user checks a world-readable file instead.
    let shadow = if File::open("/etc/shadow").is_ok() { "/etc/shadow" } else { "/etc/passwd" };
    assert!(File::open(shadow).is_ok());
    let folder = tempfile::tempdir().unwrap();
    confined(&reading(&[folder.path(), Path::new("/etc/hosts"), Path::new("/not/there")]), files, || {
        assert!(denied(File::open(shadow)));
        assert!(denied(fs::read_dir("/etc")) && denied(fs::read_dir("/")));
        assert!(File::open("/etc/hosts").is_ok(), "a rule for one file");
    });
    assert!(File::open(shadow).is_ok(), "another thread is not restricted");
}

#[test]
fn landlock_leaves_reading_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("policies")).unwrap();
    fs::write(root.join("policies/a.yaml"), "1").unwrap();
    fs::copy("/bin/true", root.join("program")).unwrap();
    assert!(Command::new(root.join("program")).status().unwrap().success());
    confined(&reading(&[root]), files, || {
        assert_eq!(fs::read_to_string(root.join("policies/a.yaml")).unwrap(), "1");
        assert_eq!(fs::read_dir(root.join("policies")).unwrap().count(), 1);
        assert!(denied(File::create(root.join("new"))));
        assert!(denied(OpenOptions::new().append(true).open(root.join("policies/a.yaml"))));
        assert!(denied(fs::remove_file(root.join("policies/a.yaml"))));
        assert!(denied(fs::rename(root.join("policies"), root.join("other"))));
        assert!(denied(fs::create_dir(root.join("folder"))));
        assert!(denied(Command::new(root.join("program")).status()));
    });
}

#[test]
fn a_folder_that_may_be_written_is_not_one_to_run_programs_from() {
    let [own, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let root = own.path();
    fs::write(other.path().join("foreign"), "1").unwrap();
    fs::copy("/bin/true", root.join("program")).unwrap();
    let access = Access { write: BTreeSet::from([root.to_owned()]), ..reading(&[other.path()]) };
    confined(&access, files, || {
        // What a file that is replaced whole takes, and a log, and a socket.
        fs::write(root.join(".draft"), "1").unwrap();
        fs::rename(root.join(".draft"), root.join("file")).unwrap();
        File::open(root).unwrap().sync_all().unwrap();
        OpenOptions::new().append(true).open(root.join("file")).unwrap().set_len(0).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::remove_dir_all(root.join("a")).unwrap();
        let _socket = UnixListener::bind(root.join("socket")).unwrap();
        fs::remove_file(root.join("socket")).unwrap();
        assert!(denied(Command::new(root.join("program")).status()));
        assert!(denied(symlink("/etc/shadow", root.join("link"))));
        assert_eq!(fs::read_to_string(other.path().join("foreign")).unwrap(), "1");
        assert!(denied(File::create(other.path().join("new"))));
        assert!(denied(fs::read_dir("/etc")));
    });
}

#[test]
fn a_rule_follows_the_folder_and_not_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (own, away) = (folder.path().join("own"), folder.path().join("away"));
    let write = |at: &Path, text: &str| {
        fs::create_dir(at).unwrap();
        fs::write(at.join("file"), text).unwrap();
    };
    write(&own, "old");
    let (to_thread, from_test) = std::sync::mpsc::channel();
    let (to_test, from_thread) = std::sync::mpsc::channel();
    let file = own.join("file");
    let looks = thread::spawn({
        let own = own.clone();
        move || {
            let outcome = restrict(&reading(&[&own]));
            for () in from_test {
                to_test.send((outcome.clone(), fs::read_to_string(&file).ok())).unwrap();
            }
        }
    });
    let look = || {
        to_thread.send(()).unwrap();
        from_thread.recv().unwrap()
    };
    let (outcome, first) = look();
    assert_eq!(first.as_deref(), Some("old"));
    fs::rename(&own, &away).unwrap();
    fs::rename(&away, &own).unwrap();
    assert_eq!(look().1.as_deref(), Some("old"), "away and back");
    fs::rename(&own, &away).unwrap();
    write(&own, "new");
    // Why the proxy asks for the folder around it as well.
    let expected = if outcome.files == Step::Whole { None } else { Some("new") };
    assert_eq!(look().1.as_deref(), expected, "{outcome}");
    drop(to_thread);
    looks.join().unwrap();
}

#[test]
fn landlock_blocks_bind_other_port() {
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    confined(&dialling(&[]), ports, || {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:15006"] {
            assert!(denied(TcpListener::bind(address)), "{address}");
        }
        // What was bound before goes on, and names are looked up over UDP.
        bound.set_nonblocking(true).unwrap();
        assert_eq!(bound.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
    });
    // The same where dialling is left open.
    confined(&Access { connect: None, ..dialling(&[]) }, ports, || {
        assert!(denied(TcpListener::bind("127.0.0.1:0")));
    });
}

#[test]
fn landlock_leaves_the_ports_that_are_to_be_bound() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    confined(&Access { bind: BTreeSet::from([port]), ..dialling(&[]) }, ports, || {
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
        assert!(denied(TcpListener::bind("127.0.0.1:0")) && denied(TcpStream::connect(("127.0.0.1", port))));
    });
    confined(&Access { bind: BTreeSet::from([0]), ..dialling(&[]) }, ports, || {
        assert!(TcpListener::bind("127.0.0.1:0").is_ok());
    });
}

#[test]
fn landlock_blocks_dialling_other_ports_where_they_are_fixed() {
    let [app, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [app, other] = [&app, &other].map(|listener| listener.local_addr().unwrap());
    confined(&dialling(&[app.port()]), ports, || {
        assert!(TcpStream::connect(app).is_ok());
        assert!(denied(TcpStream::connect(other)));
    });
    confined(&Access { connect: None, ..dialling(&[]) }, ports, || {
        assert!(TcpStream::connect(app).is_ok() && TcpStream::connect(other).is_ok());
    });
}

/// Two rulesets in force one after the other: neither may weaken the other.
#[test]
fn files_and_ports_hold_at_once() {
    let folder = tempfile::tempdir().unwrap();
    confined(&Access { connect: Some(BTreeSet::new()), ..reading(&[folder.path()]) }, ports, || {
        assert!(denied(File::open("/etc/passwd")));
        assert!(denied(TcpListener::bind("127.0.0.1:0")));
    });
}
