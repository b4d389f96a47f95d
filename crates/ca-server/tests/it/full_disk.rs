//! A disk that fills up under a running CA, and has room again.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use portcullis_ca_server::status_of;
use portcullis_testkit::certs::{Authority, Profile};
use rcgen::KeyPair;
use tonic::Code;

use crate::support::{CART, Stage, csr, eventually};

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }

    fn fill(&self) {
        let mut filler = std::fs::File::create(self.filler()).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn fresh() -> String {
    csr(&KeyPair::generate().unwrap())
}

async fn code(stage: &Stage, token: &str) -> Option<Code> {
    stage.connect().await.create(&fresh(), Some(token)).await.err().map(|refused| refused.code())
}

fn pending(dir: &Path) -> Option<String> {
    status_of(dir).unwrap().pending
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_issues_again_when_a_full_disk_has_room_and_has_forgotten_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: mounting a tmpfs takes root");
        return;
    };
    let identities = format!("identities:\n- id: {CART}\nlimits: {{perIdentityPerMinute: 6000}}\n");
    let profile = Profile::authority("cluster.local", "CN=issuing");
    let folder = tempfile::tempdir_in(disk.0.path()).unwrap();
    let mut stage = Stage::start_in(folder, &identities, Authority::root("cluster.local"), profile, None).await;
    let dir = stage.folder.path().to_owned();
    let acknowledged = stage.token(CART);
    assert_eq!(code(&stage, &acknowledged).await, None);

    disk.fill();
    // There is room in the last pages of both files for some lines; the audit may be full before the journal is.
    let mut refused = stage.token(CART);
    let mut served = vec![acknowledged];
    eventually("the state cannot be written", async || {
        refused = stage.token(CART);
        match code(&stage, &refused).await {
            None => served.push(refused.clone()),
            Some(code) => assert_eq!(code, Code::Unavailable),
        }
        pending(&dir).is_some()
    })
    .await;
    assert!(pending(&dir).unwrap().contains("No space left"), "{:?}", pending(&dir));
    assert!(stage.scrape("/metrics").await.contains("\nportcullis_ca_state_unwritable 1\n"));
    assert!(stage.scrape("/healthz/ready").await.starts_with("HTTP/1.1 503"));
    assert_eq!(code(&stage, &refused).await, Some(Code::Unavailable));

    std::fs::remove_file(disk.filler()).unwrap();
    eventually("it has recovered by itself", async || pending(&dir).is_none()).await;
    assert!(stage.scrape("/metrics").await.contains("\nportcullis_ca_state_unwritable 0\n"));
    for token in &served {
        assert_eq!(code(&stage, token).await, Some(Code::Unauthenticated), "it was used");
    }
    assert_eq!(code(&stage, &refused).await, None, "it was refused, so it was not used");
    served.push(refused);
    stage.restart().await;
    for token in &served {
        assert_eq!(code(&stage, token).await, Some(Code::Unauthenticated), "it was used before the restart");
    }
    assert_eq!(code(&stage, &stage.token(CART)).await, None);
    assert!(stage.audit().lines().all(|line| line.is_empty() || line.starts_with('{')), "{}", stage.audit());
}
