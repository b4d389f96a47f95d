//! What is read from a folder or a list of files, and what is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_reload::{FileSet, MAX_FILE_BYTES, MAX_FOLDER_DEPTH, Reading};
use rustix::fs::{CWD, FileType, Mode, mknodat};

fn folder(path: &Path) -> Reading {
    FileSet::Folder(path.to_owned()).read()
}

/// Paths below `top` with their texts.
fn texts(reading: &Reading, top: &Path) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let below = |path: &Path| path.strip_prefix(top).unwrap().display().to_string();
    reading.files.iter().map(|file| (below(&file.path), text(&file.content))).collect()
}

/// Paths below `top` with their reasons.
fn reasons(reading: &Reading, top: &Path) -> Vec<(String, &'static str)> {
    let below = |path: &Path| path.strip_prefix(top).unwrap().display().to_string();
    reading.errors.iter().map(|error| (below(error.path()), error.reason())).collect()
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn a_folder_is_read_recursively_in_lexical_order_without_hidden_and_foreign_names() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs::create_dir_all(top.join("b/deep")).unwrap();
    fs::create_dir_all(top.join(".hidden")).unwrap();
    let ignored = [".hidden/z.yaml", ".a.yaml", ".a.json", "a.yaml.swp", "a.jsonl", "readme"];
    for name in ["c.yaml", "a.yml", "b/deep/x.yaml", "b/y.yaml", "b/z.json"].into_iter().chain(ignored) {
        fs::write(top.join(name), name).unwrap();
    }
    fifo(&top.join("pipe"));
    let reading = folder(top);
    let names =
        ["a.yml", "b/deep/x.yaml", "b/y.yaml", "b/z.json", "c.yaml"].map(|name| (name.to_owned(), name.to_owned()));
    assert_eq!(texts(&reading, top), names);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
}

#[test]
fn a_mounted_volume_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs::create_dir(top.join("..v1")).unwrap();
    fs::write(top.join("..v1/a.yaml"), "1").unwrap();
    symlink("..v1", top.join("..data")).unwrap();
    symlink("..data/a.yaml", top.join("a.yaml")).unwrap();
    let reading = folder(top);
    assert_eq!(texts(&reading, top), [("a.yaml".to_owned(), "1".to_owned())]);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
}

#[test]
fn links_may_stay_inside_in_any_spelling_but_not_leave() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs::write(outside.path().join("secret.yaml"), "secret").unwrap();
    fs::create_dir(top.join(".real")).unwrap();
    fs::write(top.join(".real/a.yaml"), "1").unwrap();
    symlink(top.join(".real/a.yaml"), top.join("absolute.yaml")).unwrap();
    symlink("../.real/../.real/a.yaml", top.join(".real/hop.yaml")).unwrap();
    symlink(".real/hop.yaml", top.join("chain.yaml")).unwrap();
    symlink(".real", top.join("dir")).unwrap();
    let reading = folder(top);
    let same = |name: &str| (name.to_owned(), "1".to_owned());
    let all = ["absolute.yaml", "chain.yaml", "dir/a.yaml", "dir/hop.yaml"].map(same);
    assert_eq!(texts(&reading, top), all);

    symlink(outside.path().join("secret.yaml"), top.join("out.yaml")).unwrap();
    symlink(outside.path(), top.join("outdir")).unwrap();
    // A neighbour whose name begins like the folder's is outside as well.
    let neighbour = format!("{}x", top.display());
    fs::write(&neighbour, "secret").unwrap();
    symlink(&neighbour, top.join("near.yaml")).unwrap();
    symlink(outside.path().join("secret.yaml"), top.join("not-of-interest.txt")).unwrap();
    let reading = folder(top);
    fs::remove_file(&neighbour).unwrap();
    let leaves = |name: &str| (name.to_owned(), "link-leaves-folder");
    assert_eq!(reasons(&reading, top), ["near.yaml", "out.yaml", "outdir"].map(leaves));
    assert_eq!(texts(&reading, top), all);
}

#[test]
fn links_that_lead_nowhere_or_around_are_errors_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    symlink("nothing", top.join("dangling.yaml")).unwrap();
    symlink("self.yaml", top.join("self.yaml")).unwrap();
    symlink(".", top.join("round")).unwrap();
    fs::create_dir(top.join("sub")).unwrap();
    symlink("..", top.join("sub/up")).unwrap();
    let found = reasons(&folder(top), top);
    let expected = [
        ("dangling.yaml", "unreadable"),
        ("round", "folder-loop"),
        ("self.yaml", "not-regular-file"),
        ("sub/up", "folder-loop"),
    ];
    assert_eq!(found, expected.map(|(name, reason)| (name.to_owned(), reason)));
}

#[test]
fn only_regular_files_are_opened_and_a_fifo_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs::create_dir(top.join("dir.yaml")).unwrap();
    fifo(&top.join("pipe.yaml"));
    symlink("pipe.yaml", top.join("to-pipe.yaml")).unwrap();
    let _socket = UnixListener::bind(top.join("socket.yaml")).unwrap();

    let begin = Instant::now();
    let refused =
        ["dir.yaml", "pipe.yaml", "socket.yaml", "to-pipe.yaml"].map(|name| (name.to_owned(), "not-regular-file"));
    assert_eq!(reasons(&folder(top), top), refused);
    let names = ["dir.yaml", "pipe.yaml", "socket.yaml", "to-pipe.yaml"];
    let list = FileSet::Files(names.map(|name| top.join(name)).to_vec()).read();
    assert_eq!(reasons(&list, top), refused);
    assert_eq!(FileSet::Files(vec!["/dev/zero".into()]).read().errors[0].reason(), "not-regular-file");
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[test]
fn sizes_are_limited_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
    fs::write(top.join("full.yaml"), vec![b' '; limit]).unwrap();
    assert_eq!(folder(top).files[0].content.len(), limit);
    fs::write(top.join("over.yaml"), vec![b' '; limit + 1]).unwrap();
    fs::write(top.join("zero.yaml"), "").unwrap();
    // Sparse: a terabyte that must not be read.
    fs::File::create(top.join("vast.yaml")).unwrap().set_len(1 << 40).unwrap();
    let expected = [("over.yaml", "file-too-large"), ("vast.yaml", "file-too-large"), ("zero.yaml", "empty-file")];
    assert_eq!(reasons(&folder(top), top), expected.map(|(name, reason)| (name.to_owned(), reason)));
}

#[test]
fn a_folder_is_limited_in_bytes_and_depth() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    for n in 0..65 {
        fs::write(top.join(format!("{n}.yaml")), vec![b' '; 1024 * 1024]).unwrap();
    }
    assert_eq!(reasons(&folder(top), top), [(String::new(), "folder-too-large")]);
    fs::remove_file(top.join("64.yaml")).unwrap();
    assert!(folder(top).errors.is_empty());

    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    let deep: std::path::PathBuf = vec!["d"; MAX_FOLDER_DEPTH].iter().collect();
    fs::create_dir_all(top.join(&deep)).unwrap();
    assert_eq!(reasons(&folder(top), top), [(String::new(), "folder-too-large")]);
}

#[test]
fn what_is_not_there_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    assert_eq!(reasons(&folder(&top.join("none")), top), [("none".to_owned(), "unreadable")]);
    fs::write(top.join("file"), "x").unwrap();
    assert_eq!(reasons(&folder(&top.join("file")), top), [("file".to_owned(), "unreadable")]);
    let list = FileSet::Files(vec![top.join("file"), top.join("none")]).read();
    assert_eq!(reasons(&list, top), [("none".to_owned(), "unreadable")]);
    let message = list.complete().unwrap_err().to_string();
    assert!(message.contains("none") && message.contains("No such file"), "{message}");
}

#[test]
fn a_list_keeps_its_order_and_may_link_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs::write(elsewhere.path().join("key"), "k").unwrap();
    symlink(elsewhere.path().join("key"), top.join("key.pem")).unwrap();
    fs::write(top.join("cert.pem"), "c").unwrap();
    let list = FileSet::Files(vec![top.join("key.pem"), top.join("cert.pem")]).read();
    let expected = [("key.pem", "k"), ("cert.pem", "c")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(texts(&list, top), expected);
}

#[test]
fn secrets_are_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key.pem"), "very secret").unwrap();
    let shown = format!("{:?}", FileSet::Files(vec![dir.path().join("key.pem")]).read());
    assert!(shown.contains("<11 bytes>") && !shown.contains("secret"), "{shown}");
}
