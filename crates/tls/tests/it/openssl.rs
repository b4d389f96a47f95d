//! The same promises, probed from outside by the `openssl` command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use crate::common::{DOMAIN, ME, WEB, credentials_with, expect};
use crate::outside::{server_profile, web_ca};
use portcullis_identity::HostPattern;
use portcullis_testkit::certs::{Authority, Profile};
use portcullis_testkit::{KeyKind, openssl_path};
use portcullis_tls::{
    CertificateFor, Clock, Credentials, HandshakeError, MinVersion, OneWayParts, OneWayServer, OriginationParts,
    Originator, Roots, accept_one_way, client, originate, server,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// A folder with a client's certificate, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, ca: &Authority, profile: &Profile) -> Self {
        let folder = Self(std::env::temp_dir().join(format!("portcullis-openssl-{name}-{}", std::process::id())));
        std::fs::create_dir_all(&folder.0).unwrap();
        let issued = ca.issue(profile);
        std::fs::write(folder.path("cert.pem"), issued.cert_pem()).unwrap();
        std::fs::write(folder.path("key.pem"), issued.key_pem()).unwrap();
        std::fs::write(folder.path("ca.pem"), ca.bundle_pem()).unwrap();
        folder
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn command() -> Command {
    let mut command = Command::new(openssl_path().expect("openssl is needed for these probes"));
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Serves connections for as long as the test runs: greets, ends cleanly.
async fn serve(ours: Arc<Credentials>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let ours = Arc::clone(&ours);
            tokio::spawn(async move {
                if let Ok((mut stream, peer)) = server::accept(stream, &ours).await {
                    let _ = stream.write_all(format!("hello {}\n", peer.id).as_bytes()).await;
                    let _ = stream.shutdown().await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            });
        }
    });
    address
}

/// Everything that `openssl s_client` says.
async fn s_client(address: SocketAddr, arguments: &[&str]) -> String {
    let address = address.to_string();
    let mut all = vec!["s_client", "-connect", &address];
    all.extend(arguments);
    let output = command().args(all).output().await.unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn scene(name: &str) -> (Authority, Arc<Credentials>, Folder) {
    let ca = Authority::root(DOMAIN);
    let ours = credentials_with(&ca, ME, |rules| rules.min_version = MinVersion::Tls12);
    let folder = Folder::new(name, &ca, &Profile::leaf(WEB));
    (ca, ours, folder)
}

#[tokio::test]
async fn a_session_is_never_resumed_and_no_ticket_is_sent() {
    let (_, ours, folder) = scene("resume");
    let address = serve(ours).await;
    let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    for version in ["-tls1_3", "-tls1_2"] {
        let session = folder.path(version);
        let seen = s_client(address, &[version, "-cert", &cert, "-key", &key, "-sess_out", &session, "-ign_eof"]).await;
        assert!(seen.contains(&format!("hello {WEB}")), "{seen}");
        assert!(!seen.contains("Post-Handshake New Session Ticket"), "{seen}");
        if version == "-tls1_2" {
            // Five reconnects in one go, each wanting to resume.
            let seen = s_client(address, &[version, "-cert", &cert, "-key", &key, "-reconnect"]).await;
            assert_eq!(seen.matches("New, TLSv1.2").count(), 6, "{seen}");
            assert!(!seen.contains("Reused"), "{seen}");
        }
        // With whatever it has kept, but without a certificate.
        let mut arguments = vec![version, "-ign_eof"];
        if std::fs::exists(&session).unwrap() {
            arguments.extend(["-sess_in", session.as_str()]);
        }
        let seen = s_client(address, &arguments).await;
        assert!(!seen.contains("Reused") && !seen.contains("hello"), "{seen}");
        assert!(seen.contains("alert"), "{seen}");
    }
}

#[tokio::test]
async fn x25519_only_client_ok() {
    let (_, ours, folder) = scene("groups");
    let address = serve(ours).await;
    let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    for (groups, works) in [("X25519", true), ("P-256", true), ("P-384", true), ("X448:X25519", true), ("P-521", false)]
    {
        let seen = s_client(address, &["-tls1_3", "-cert", &cert, "-key", &key, "-groups", groups, "-ign_eof"]).await;
        assert_eq!(seen.contains(&format!("hello {WEB}")), works, "{groups}: {seen}");
        assert_eq!(seen.contains("handshake failure"), !works, "{groups}: {seen}");
    }
}

#[tokio::test]
async fn old_versions_and_weak_suites_are_refused() {
    let (ca, lenient, folder) = scene("versions");
    let strict = serve(crate::common::credentials(&ca, ME)).await;
    let lenient = serve(lenient).await;
    let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let with = ["-cert", cert.as_str(), "-key", key.as_str(), "-ign_eof"];
    let go = async |address, more: &[&str]| s_client(address, &[&with, more].concat()).await.contains("hello");
    assert!(go(strict, &["-tls1_3"]).await && go(lenient, &["-tls1_2"]).await);
    assert!(!go(strict, &["-tls1_2"]).await);
    // Security level 0 lets openssl offer what is too old for it as well.
    for version in ["-tls1", "-tls1_1"] {
        assert!(!go(lenient, &[version, "-cipher", "ALL:@SECLEVEL=0"]).await, "{version}");
    }
    for suites in ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES256-GCM-SHA384", "aNULL:@SECLEVEL=0"] {
        assert!(!go(lenient, &["-tls1_2", "-cipher", suites]).await, "{suites}");
    }
    assert!(go(lenient, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]).await);
}

#[tokio::test]
async fn the_request_names_no_ca_and_only_the_listed_signatures() {
    let (_, ours, folder) = scene("request");
    let address = serve(ours).await;
    let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let seen = s_client(address, &["-tls1_3", "-cert", &cert, "-key", &key, "-ign_eof"]).await;
    assert!(seen.contains("No client certificate CA names sent"), "{seen}");
    let line = seen.lines().find_map(|line| line.strip_prefix("Requested Signature Algorithms: ")).unwrap();
    let wanted = "ECDSA+SHA384:ECDSA+SHA256:ed25519:RSA-PSS+SHA512:RSA-PSS+SHA384:RSA-PSS+SHA256:RSA+SHA512:RSA+SHA384:RSA+SHA256";
    assert_eq!(line.trim(), wanted);
}

#[tokio::test]
async fn weak_certificates_of_a_real_client_are_refused() {
    let (ca, ours, _) = scene("weak");
    let rsa = Folder::new("rsa1024", &ca, &Profile { key: KeyKind::Rsa1024, ..Profile::leaf(WEB) });
    let sha1 = Folder::new("sha1", &ca, &Profile { sha1: true, ..Profile::leaf(WEB) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (folder, class) in [(rsa, "weak-key"), (sha1, "weak-sig")] {
        let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
        let arguments = ["-tls1_3", "-cert", &cert, "-key", &key, "-cipher", "DEFAULT:@SECLEVEL=0", "-ign_eof"];
        let accept = async { server::accept(listener.accept().await.unwrap().0, &ours).await };
        let (result, seen) = tokio::join!(accept, s_client(address, &arguments));
        assert_eq!(result.unwrap_err().class(), class);
        assert!(seen.contains("alert"), "{seen}");
    }
}

/// `openssl s_server` on a free port, and the address that it says it has.
async fn s_server(folder: &Folder, arguments: &[&str]) -> (Child, SocketAddr) {
    let (cert, key, ca) = (folder.path("cert.pem"), folder.path("key.pem"), folder.path("ca.pem"));
    let mut all = vec!["s_server", "-accept", "127.0.0.1:0", "-cert", &cert, "-key", &key, "-CAfile", &ca];
    all.extend(arguments);
    let mut child = command().stdin(Stdio::piped()).args(all).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            return (child, address.parse().unwrap());
        }
    }
    panic!("openssl s_server did not start");
}

#[tokio::test]
async fn our_client_and_a_real_server() {
    let (_, ours, folder) = scene("server");
    let dial = async |arguments: &[&str], expected: &str| {
        let (_child, address) = s_server(&folder, arguments).await;
        let stream = TcpStream::connect(address).await.unwrap();
        client::connect(stream, &ours, &expect(expected), None).await
    };
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let (_, peer) = dial(&[version, "-Verify", "1", "-verify_return_error"], WEB).await.unwrap();
        assert_eq!((peer.id.as_str(), peer.tls_version, peer.group), (WEB, name, "X25519"));
    }
    let refused = dial(&["-tls1_3"], "spiffe://example.org/other").await.unwrap_err();
    assert!(matches!(refused, HandshakeError::IdMismatch { .. }), "{refused:?}");
    let refused = dial(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], WEB).await.unwrap_err();
    assert_eq!(refused.class(), "protocol_version", "{refused}");
}

#[tokio::test]
async fn a_real_server_outside_of_the_mesh() {
    const HOST: &str = "api.example.com";
    let ca = web_ca();
    let folder = Folder::new("origination", &ca, &server_profile(&[HOST]));
    let profile =
        Profile { extended_key_usage: Some(vec![Profile::CLIENT_AUTH]), ..server_profile(&["client.example.com"]) };
    let client = ca.issue(&profile);
    let (bundle, chain, key) = (ca.bundle_pem(), client.cert_pem(), client.key_pem());
    let dial = async |arguments: &[&str], sni: &str| {
        let parts = OriginationParts {
            ca: Roots::Chosen(bundle.as_bytes()),
            client: Some((chain.as_bytes(), key.as_bytes())),
            subject_alt_names: &[],
            sni,
            min_version: MinVersion::Tls12,
        };
        let originator = Originator::new(&parts, &Clock::system()).unwrap();
        let (_child, address) = s_server(&folder, &[arguments, &["-rev"]].concat()).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut stream, info) = originate(stream, &originator).await?;
        // The server sends back each line, reversed.
        stream.write_all(b"hello\n").await.unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"olleh\n");
        Ok::<_, HandshakeError>(info.negotiated.tls_version)
    };
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        assert_eq!(dial(&[version], HOST).await.unwrap(), name);
        assert_eq!(dial(&[version, "-Verify", "1", "-verify_return_error"], HOST).await.unwrap(), name);
        let refused = dial(&[version], "other.example.com").await.unwrap_err();
        assert_eq!(refused.class(), "server-name", "{refused}");
    }
}

#[tokio::test]
async fn a_real_client_outside_of_the_mesh() {
    let ca = web_ca();
    let names = ["shop.example.com", "*.example.org"];
    let certificates = names.map(|name| {
        let issued = ca.issue(&server_profile(&[name]));
        CertificateFor {
            hosts: vec![HostPattern::parse(name).unwrap()],
            chain: issued.cert_pem().into(),
            key: issued.key_pem().into_bytes().into(),
        }
    });
    let parts = OneWayParts {
        certificates: certificates.into(),
        first_without_name: false,
        client_ca: None,
        min_version: MinVersion::Tls12,
    };
    let server = OneWayServer::new(&parts, &Clock::system()).unwrap();
    let folder = Folder::new("one-way", &ca, &server_profile(&["unused.test"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ca_file = folder.path("ca.pem");
    for (name, version, works) in [
        ("shop.example.com", "-tls1_3", true),
        ("shop.example.com", "-tls1_2", true),
        ("a.example.org", "-tls1_3", true),
        ("a.example.net", "-tls1_3", false),
        ("a.example.net", "-tls1_2", false),
    ] {
        let accept = async {
            let (mut stream, info) = accept_one_way(listener.accept().await.unwrap().0, &server).await?;
            stream.write_all(b"hello\n").await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            Ok::<_, HandshakeError>(info)
        };
        let verify = ["-CAfile", &ca_file, "-verify_return_error", "-verify_hostname", name, "-servername", name];
        let arguments = [&verify[..], &[version, "-ign_eof"]].concat();
        let (ours, seen) = tokio::join!(accept, s_client(address, &arguments));
        assert_eq!(ours.is_ok(), works, "{ours:?}");
        assert_eq!(seen.contains("hello") && seen.contains("Verification: OK"), works, "{seen}");
        assert_eq!(seen.contains("unrecognized name"), !works, "{seen}");
    }
}
