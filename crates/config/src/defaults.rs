//! Every default of the configuration, defined once, with its unit and its reason.

use std::time::Duration;

/// Trust domain of the mesh: Istio's own default (`meshConfig.trustDomain`).
pub const TRUST_DOMAIN: &str = "cluster.local";

/// Root namespace, where a policy without a selector is mesh-wide: Istio's `meshConfig.rootNamespace`.
pub const ROOT_NAMESPACE: &str = "istio-system";

/// From accept until the peer is authorised: detection and handshake share it. linkerd and ghostunnel use the same
/// 10 s; Envoy and ztunnel have none, which lets silent sockets pin descriptors for ever.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a dial may take, to the local app or to a peer. A local app answers in microseconds; a peer across a slow
/// network within two SYN retransmissions (1 s + 2 s).
pub const CONNECT: Duration = Duration::from_secs(5);

/// Without a byte after the first FIN (RFC 9293 half-close). ghostunnel raised 1 s to 60 s because data was cut off.
pub const HALF_CLOSE: Duration = Duration::from_secs(60);

/// Without a byte in either direction, both ends still open. Istio's `idleTimeout` for TCP is 1 h.
pub const IDLE: Duration = Duration::from_secs(3600);

/// Silence of the client on a server-first port before the app is dialled while detection goes on.
pub const SERVER_FIRST: Duration = Duration::from_millis(100);

/// Ports whose protocol lets the server speak first: FTP, SMTP, POP3, IMAP, submission, MySQL.
pub const SERVER_FIRST_PORTS: &[u16] = &[21, 25, 110, 143, 587, 3306];

/// Connections that may be in detection or handshake at once, over all listeners.
pub const HANDSHAKES: usize = 1024;

/// Bytes that stalled connections may hold in buffers, over all of them: 64 MB. Two hundred and fifty of them hold a whole
/// buffer; a sidecar's container has 128 MB and more. One peer may hold a quarter.
pub const BUFFERS: usize = 64_000_000;

/// Observations that the ledger keeps: a peer at a port by a transport. A few hundred bytes each.
pub const LEDGER_PAIRS: usize = 10_000;

/// `ledger.reverseDns`: names make reports readable, and their look-ups wait for no connection.
pub const LEDGER_REVERSE_DNS: bool = true;

/// `gateway.listeners[].tls.minVersion` is "1.2", as in Istio's gateways: external clients may be old.
pub const GATEWAY_ALLOWS_TLS12: bool = true;

/// From the first termination signal to the forced end. Docker kills after 10 s by default; the quick start sets
/// `stop_grace_period: 30s`.
pub const DRAIN_GRACE: Duration = Duration::from_secs(20);

/// After the signal the proxy is not ready but still accepts, so that load balancers notice.
pub const DRAIN_DELAY: Duration = Duration::from_secs(1);

/// Rescan of a policy folder that is too large for the 2 s one (more than 1 MiB or 100 files).
pub const RESCAN: Duration = Duration::from_secs(30);

/// Where Kubernetes mounts the token of a pod's service account, and the root of its API server.
pub const SERVICE_ACCOUNT_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long `kubernetes.startup: last-good` waits for the API server before the copy is taken: longer than a restart of the
/// connection, and far below the kubelet's patience with a start.
pub const KUBERNETES_STARTUP: Duration = Duration::from_secs(5);

/// One request with log lines to an OpenTelemetry collector, as OpenTelemetry's exporters have it.
pub const OTLP_TIMEOUT: Duration = Duration::from_secs(10);

/// At the end of the process, for the log lines that are not sent yet. With the drain it stays below compose's 30 s.
pub const OTLP_FLUSH: Duration = Duration::from_secs(3);

/// Where ambient's workloads take HBONE tunnels.
pub const HBONE_PORT: u16 = 15008;
