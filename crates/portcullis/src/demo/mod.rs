//! The demonstration: what each mode admits, shown with real processes on loopback and nothing installed.
//!
//! Each attempt is observed at three points: the client (its answer), the app (its connections) and the inbound sidecar (its
//! access line). An outcome counts only if they agree. The expectations are those of Istio's
//! PeerAuthentication, so `--check` makes the demonstration a test of the built binary. The sidecars of the mesh get their
//! certificates from a CA that runs beside them; the attacker's sidecar has files of its own.

mod app;
mod authority;
mod client;
mod log;
pub(crate) mod server;
mod stage;
mod table;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use portcullis_ca::{Private, Root};
use portcullis_identity::{KeyType, SpiffeId, TrustDomain};
use portcullis_policy::Mode;
use portcullis_tls::Clock;

use self::app::{App, MARKER, Visit};
use self::authority::Authority;
use self::client::Got;
use self::log::POLL;
use self::stage::{Sidecar, Stage};
use self::table::{Attempt, Cell, Column, Outcome, render};
use crate::commands::Outcome as CommandOutcome;
use crate::exit::Exit;
use crate::output;

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/web";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const OTHER_SERVER: &str = "spiffe://cluster.local/ns/shop/sa/billing";
/// No certificate of the demo is used longer.
const TTL: Duration = Duration::from_secs(60 * 60);
/// A changed policy must be in force within this; usual is a tenth of a second.
const IN_FORCE: Duration = Duration::from_secs(10);

/// Options of the demonstration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) check: bool,
    pub(crate) keep: bool,
}

/// Runs it and prints the table.
pub(crate) fn run(options: Options) -> CommandOutcome {
    let begun = Instant::now();
    let stage = Stage::new(options.keep).context("cannot make a folder for the demo")?;
    let folder = stage.folder().display().to_string();
    output::note(&format!("certificates, configurations and logs are in {folder} while this runs"));
    let mut scene = Scene::start(&stage)?;
    let mut columns = Vec::new();
    for mode in Mode::ALL {
        columns.push(scene.try_mode(mode).with_context(|| format!("mode {mode}"))?);
    }
    scene.ensure_no_other_connection()?;
    let wrong = columns.iter().flat_map(|column| &column.cells).filter(|cell| !cell.is_right()).count();
    output::text(&format!(
        "\nA client connects to an app behind a sidecar, while its PeerAuthentication is edited:\n\n{}\n{} of {} as \
         expected, in {:.1} s.\n",
        render(&columns),
        columns.len() * Attempt::ALL.len() - wrong,
        columns.len() * Attempt::ALL.len(),
        begun.elapsed().as_secs_f64(),
    ))?;
    let kept = if options.keep { "is kept" } else { "is removed now; --keep keeps it" };
    output::note(&format!("{folder} {kept}"));
    Ok(if options.check && wrong > 0 { Exit::Failure } else { Exit::Ok })
}

/// An app behind an inbound sidecar, and two outbound sidecars: one of the mesh and an attacker's.
struct Scene<'s> {
    stage: &'s Stage,
    app: App,
    inbound: SocketAddr,
    cart: Sidecar,
    /// Outbound listener that expects the right server.
    mesh: SocketAddr,
    /// Outbound listener that expects another server.
    wrong_identity: SocketAddr,
    web: Sidecar,
    wrong_ca: SocketAddr,
    attacker: Sidecar,
}

impl<'s> Scene<'s> {
    fn start(stage: &'s Stage) -> anyhow::Result<Self> {
        let authority = Authority::start(stage, &[("cart", SERVER), ("web", CLIENT)])?;
        write_foreign_certificate(stage, &authority.roots)?;
        // The last mode of the demo, so that the first one is a change of a running sidecar too.
        write_policy(stage, Mode::Disable)?;
        let app = App::start().context("cannot start the app")?;
        let (cart, [inbound]) = stage.start("cart", |[listen]| {
            format!(
                "{}policies: policies\ninbound:\n  ports: [{{listen: \"{listen}\", port: 8080, app: \"{}\"}}]\n",
                common("cart", &authority.identity("cart")),
                app.address
            )
        })?;
        let upstream = |listen: SocketAddr, id: &str| {
            format!("  - {{listen: \"{listen}\", address: \"{inbound}\", mode: mtls, identities: [\"{id}\"]}}\n")
        };
        let (web, [mesh, wrong_identity]) = stage.start("web", |[right, wrong]| {
            let upstreams = [upstream(right, SERVER), upstream(wrong, OTHER_SERVER)].concat();
            format!("{}outbound:\n  upstreams:\n{upstreams}", common("web", &authority.identity("web")))
        })?;
        let (attacker, [wrong_ca]) = stage.start("attacker", |[listen]| {
            format!("{}outbound:\n  upstreams:\n{}", common("web", FOREIGN_IDENTITY), upstream(listen, SERVER))
        })?;
        Ok(Self { stage, app, inbound, cart, mesh, wrong_identity, web, wrong_ca, attacker })
    }

    /// Puts a mode in force and makes every attempt.
    fn try_mode(&mut self, mode: Mode) -> anyhow::Result<Column> {
        let in_force_after = self.put_in_force(mode)?;
        let mut cells = Vec::new();
        for attempt in Attempt::ALL {
            let outcome = self.make(attempt, mode).with_context(|| format!("{attempt:?}"))?;
            cells.push(Cell { expected: attempt.expected(mode), outcome, client: CLIENT.to_owned() });
        }
        Ok(Column { mode, in_force_after, cells })
    }

    /// Edits the policy file and opens probe connections until the sidecar logs the new mode.
    fn put_in_force(&mut self, mode: Mode) -> anyhow::Result<Duration> {
        write_policy(self.stage, mode)?;
        let begun = Instant::now();
        loop {
            let _probe = client::plain(self.inbound, "probe")?;
            if self.cart.log.next()?.mode == mode.as_str() {
                break;
            }
            ensure!(begun.elapsed() < IN_FORCE, "the policy is not in force after {IN_FORCE:?}");
            thread::sleep(POLL);
        }
        let elapsed = begun.elapsed();
        let _probes = self.app.take_visits();
        Ok(elapsed)
    }

    fn make(&mut self, attempt: Attempt, mode: Mode) -> anyhow::Result<Outcome> {
        self.ensure_no_other_connection()?;
        let line = format!("{attempt:?} under {mode}");
        let got = match attempt {
            Attempt::Plaintext => client::plain(self.inbound, &line),
            Attempt::Mesh => client::plain(self.mesh, &line),
            Attempt::WrongCa => client::plain(self.wrong_ca, &line),
            Attempt::WrongIdentity => client::plain(self.wrong_identity, &line),
            Attempt::NoCertificate => client::without_certificate(self.inbound, &line),
        }?;
        let inbound = self.cart.log.next()?;
        let outbound = match attempt {
            Attempt::Plaintext | Attempt::NoCertificate => None,
            Attempt::Mesh | Attempt::WrongIdentity => Some(self.web.log.next()?),
            Attempt::WrongCa => Some(self.attacker.log.next()?),
        };
        // An unexpected server is refused by the client's sidecar, everything else by the server's.
        let refused_by = outbound.filter(|_| attempt == Attempt::WrongIdentity).unwrap_or_else(|| inbound.clone());
        let visits = self.app.take_visits();
        Ok(match (got, visits.as_slice()) {
            (Got::Answer(answer), [Visit::Line(seen)]) if *seen == line && answer == format!("{MARKER}{line}") => {
                match inbound.src_identity {
                    Some(id) if inbound.transport == "mtls" => Outcome::Mtls(id),
                    Some(id) => Outcome::Contradiction(format!("{id} without mTLS")),
                    None => Outcome::Plaintext,
                }
            }
            (Got::End(_), [Visit::RawTls]) => Outcome::RawTls,
            (Got::End(_), []) if refused_by.decision == "deny" => Outcome::Refused(refused_by.reason),
            (got, visits) => {
                Outcome::Contradiction(format!("client {got:?}, app {visits:?}, sidecar {}", inbound.decision))
            }
        })
    }

    /// Each connection is accounted for, so that a late record is not attributed to the next attempt.
    fn ensure_no_other_connection(&mut self) -> anyhow::Result<()> {
        let visits = self.app.take_visits();
        ensure!(visits.is_empty(), "the app was reached by a refused connection: {visits:?}");
        let lines = self.cart.log.unread()?;
        ensure!(lines.is_empty(), "the sidecar logged unexpected connections: {lines:?}");
        Ok(())
    }
}

/// A certificate for a workload of the mesh that a foreign CA signed. The attacker trusts the mesh's CA, so the refusal must
/// come from the mesh.
fn write_foreign_certificate(stage: &Stage, mesh: &str) -> anyhow::Result<()> {
    let foreign = Root::generate(&TrustDomain::parse("cluster.local")?, TTL, &Clock::system())?;
    let issued = foreign.issue(&SpiffeId::parse(CLIENT)?, TTL, KeyType::EcdsaP256)?;
    stage.write("attacker/key.pem", &issued.key_pem, Private::Yes)?;
    stage.write("attacker/cert.pem", &issued.cert_chain_pem, Private::No)?;
    stage.write("attacker/ca.pem", &[mesh, foreign.cert_pem()].concat(), Private::No)
}

/// `identity` of the attacker's sidecar: files.
const FOREIGN_IDENTITY: &str = "identity: {files: {certificate: attacker/cert.pem, privateKey: attacker/key.pem, \
                       trustBundle: attacker/ca.pem}}\n";

/// The first lines of a configuration: the workload and the source of its certificate.
fn common(name: &str, identity: &str) -> String {
    format!("workload: {{name: {name}, namespace: shop, serviceAccount: {name}, labels: {{app: {name}}}}}\n{identity}")
}

fn write_policy(stage: &Stage, mode: Mode) -> anyhow::Result<()> {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: cart, namespace: shop}}\nspec:\n  \
         selector: {{matchLabels: {{app: cart}}}}\n  mtls: {{mode: {mode}}}\n"
    );
    stage.write("policies/cart.yaml", &text, Private::No)
}
