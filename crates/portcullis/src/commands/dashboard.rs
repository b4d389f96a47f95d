//! `portcullis dashboard`: the page of all sidecars together, on a port of this machine.

use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use portcullis_admin::{Views, serve_page};
use portcullis_api::{Certs, Changes, Observations, Recent, Timestamp};
use portcullis_dashboard::{Certificate, Sidecar, View, view};
use portcullis_discovery::{Sidecar as Asked, Unanswered};
use portcullis_report::Names;
use portcullis_tls::Clock;

use super::proxies::{Answers, ProxiesArgs, proxy_info};
use crate::exit::{Failure, Outcome};
use crate::output;

/// As `istioctl dashboard kiali` has it.
const DEFAULT_PORT: u16 = 20001;
/// How often the sidecars are asked.
const REFRESH: Duration = Duration::from_secs(2);

/// Serve a page that shows which traffic is mTLS over all proxies, and why not, until it is interrupted
///
/// The page is the one that each proxy has at its admin address, with all of them on it. It changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis dashboard
  portcullis dashboard --proxies proxies.yaml --no-browser
  portcullis dashboard --docker --port 8088
  portcullis dashboard --proxies dns:sidecars:15000 --address 0.0.0.0 --port 8088 --no-browser")]
pub(crate) struct Args {
    /// Port of the page [default: 20001, or a free one if it is taken]
    #[arg(short, long)]
    port: Option<u16>,
    /// Address of the page. On an address that is not loopback, everybody who reaches it sees the page
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Do not open a browser
    #[arg(long)]
    no_browser: bool,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// The newest view.
struct Latest(ArcSwap<View>);

impl Views for Latest {
    fn view(&self) -> Arc<View> {
        self.0.load_full()
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let listener = args.listen()?;
    let url = format!("http://{}/", listener.local_addr()?);
    // A wrong list is told before the page is served.
    let latest = Arc::new(Latest(ArcSwap::from_pointee(args.view()?)));
    let views: Arc<dyn Views> = Arc::<Latest>::clone(&latest);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    {
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        runtime.spawn(serve_page(listener, views));
    }
    output::text(&format!("{url}\n"))?;
    open(&url, args.no_browser);
    loop {
        std::thread::sleep(REFRESH);
        match args.view() {
            Ok(view) => latest.0.store(Arc::new(view)),
            // Old answers would look like what is.
            Err(Failure { error, .. }) => {
                output::note(&format!("warning: {error:#}"));
                latest.0.store(Arc::new(nobody(&latest.0.load(), format!("{error:#}"))));
            }
        }
    }
}

/// No sidecar is found any more.
fn nobody(before: &View, why: String) -> View {
    View {
        title: before.title.clone(),
        now: Timestamp::from_unix(Clock::system().now_unix()),
        asked: before.asked.max(1),
        unreachable: vec![("all sidecars".to_owned(), why)],
        ..View::default()
    }
}

impl Args {
    fn listen(&self) -> Result<TcpListener, Failure> {
        let bind = |port: u16| TcpListener::bind(SocketAddr::new(self.address, port));
        let listener = match self.port {
            Some(port) => bind(port),
            None => bind(DEFAULT_PORT).or_else(|_| bind(0)),
        };
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let listener = listener.with_context(|| format!("cannot listen on {}", SocketAddr::new(self.address, port)))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    fn view(&self) -> Result<View, Failure> {
        let Answers { answers, unanswered, containers } =
            self.proxies.find()?.rows(|asked| async move { sidecar(&asked).await });
        let title = answers.first().map_or_else(String::new, |one| one.value.observations.proxy.trust_domain.clone());
        let mut sidecars: Vec<(String, Result<Sidecar, String>)> =
            answers.into_iter().map(|answer| (answer.target.address.to_string(), Ok(answer.value))).collect();
        sidecars.extend(unanswered.into_iter().map(|missing| {
            let who = missing.name.unwrap_or(missing.address);
            (who, Err(missing.message))
        }));
        let names: Names = containers
            .iter()
            .map(|(address, name, since)| (address, name.to_owned(), Timestamp::from_unix(since)))
            .collect();
        Ok(view(title, &sidecars, &names, Timestamp::from_unix(Clock::system().now_unix())))
    }
}

async fn sidecar(asked: &Asked) -> Result<Sidecar, Unanswered> {
    let proxy = proxy_info(asked).await?;
    let observations = asked.get::<Observations>("/observations").await?;
    let recent = asked.get::<Recent>("/recent?denied=true").await?;
    let changes = asked.get::<Changes>("/changes").await?;
    let certs = asked.get::<Certs>("/certs").await?;
    let certificate = |own: portcullis_api::WorkloadCertificate| {
        let leaf = own.cert_chain.first().cloned().unwrap_or_default();
        Certificate {
            workload: format!("{}.{}", proxy.name, proxy.namespace),
            identity: own.identity,
            not_before: leaf.valid_from.unwrap_or_default(),
            not_after: leaf.expiration_time.unwrap_or_default(),
            problem: Some(own.state).filter(|state| state != "Available"),
        }
    };
    Ok(Sidecar {
        certificates: certs.certificates.into_iter().map(certificate).collect(),
        observations,
        recent,
        changes,
    })
}

/// Opens a browser for a person at a desktop. Whether that works is seen there.
fn open(url: &str, unwanted: bool) {
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if unwanted || !desktop || !std::io::stdout().is_terminal() {
        output::note("skipping opening a browser");
        return;
    }
    let opened =
        Command::new("xdg-open").arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Err(error) = opened {
        output::note(&format!("no browser can be opened: xdg-open: {error}"));
    }
}
