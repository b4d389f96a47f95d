//! The outcome table: each reason why a connection ends, in one row.
//!
//! Logs, metrics and the documentation are all made from it, so that a label means one thing everywhere, and each comes with
//! something to do. Labels are part of the product's stable interface: they are added, never changed.
//!
//! A row is `Variant = Outcome;`, with the fault of a lower layer that it stands for behind a comma. A fault without a row
//! does not compile.

use std::fmt;

use portcullis_policy::{Refusal, authorization};
use portcullis_telemetry::{ConnStage as Stage, Outcome, ResponseFlag as Flag, outcome};
use portcullis_tls::HandshakeFault;

macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $row:expr $(, handshake $fault:ident)? $(, refusal $refusal:ident)?;)+) => {
        /// Why a connection was refused or ended. A clean end has no reason.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its row.
            #[must_use]
            pub const fn outcome(self) -> &'static Outcome {
                match self {
                    $(Self::$variant => const { &$row.with_doc(concat!($($doc),+)) },)+
                }
            }
        }

        impl From<HandshakeFault> for Reason {
            fn from(fault: HandshakeFault) -> Self {
                match fault {
                    $($(HandshakeFault::$fault => Self::$variant,)?)+
                }
            }
        }

        impl From<Refusal> for Reason {
            fn from(refusal: Refusal) -> Self {
                match refusal {
                    $($(Refusal::$refusal => Self::$variant,)?)+
                }
            }
        }
    };
}

outcomes! {
    /// Plaintext on a STRICT port.
    PlaintextInStrict = Outcome::deny("plaintext_in_strict", Stage::Detection, Flag::Deny,
        "the client has no sidecar; give it one, or set this port to PERMISSIVE in portLevelMtls while you migrate"), refusal PlaintextInStrict;
    /// The client sent no byte before its FIN or the deadline.
    SilentClient = Outcome::deny("silent_client", Stage::Detection, Flag::Deny,
        "the client sent nothing; if the server speaks first on this port, set protocol: server-first or list it in inbound.serverFirstPorts"), refusal SilentClient;
    /// A ClientHello that was never finished.
    IncompleteHello = Outcome::deny("incomplete_hello", Stage::Detection, Flag::Deny,
        "the client began TLS and disconnected, or timed out before it sent a complete ClientHello"), refusal IncompleteHello;
    /// A ClientHello whose body does not parse.
    MalformedHello = Outcome::deny("malformed_hello", Stage::Detection, Flag::Deny,
        "the client's ClientHello is malformed; what looks like TLS is not forwarded as plaintext"), refusal MalformedHello;
    /// The handshake was not complete at the deadline.
    HandshakeTimeout = Outcome::deny("handshake_timeout", Stage::Handshake, Flag::TlsFailure,
        "the handshake was not complete within timeouts.handshake");
    /// The peer presented no certificate.
    NoCertificate = Outcome::deny("no_certificate", Stage::Handshake, Flag::TlsFailure,
        "the peer speaks TLS but presents no certificate: it has no sidecar, or no identity yet"), handshake NoCertificate;
    /// The peer's chain leads to none of the configured roots.
    UnknownCa = Outcome::deny("unknown_ca", Stage::Handshake, Flag::TlsFailure,
        "the peer's certificate is from a CA that trustBundle does not contain"), handshake UnknownCa;
    /// The peer's chain has expired.
    Expired = Outcome::deny("expired", Stage::Handshake, Flag::TlsFailure,
        "renew the peer's certificate, or correct a clock"), handshake Expired;
    /// The peer's chain is not valid yet.
    NotYetValid = Outcome::deny("not_yet_valid", Stage::Handshake, Flag::TlsFailure,
        "correct the clock of this host or of the issuing CA"), handshake NotYetValid;
    /// The peer's certificate is not acceptable as an X.509-SVID.
    BadCertificate = Outcome::deny("bad_certificate", Stage::Handshake, Flag::TlsFailure,
        "the peer's certificate is not an X.509-SVID"), handshake BadCertificate;
    /// The peer belongs to a trust domain that is not trusted, or a CA of another domain signed its certificate.
    TdMismatch = Outcome::deny("td_mismatch", Stage::Handshake, Flag::TlsFailure,
        "the peer belongs to another trust domain; add mesh.trustDomainAliases or mesh.trustBundles if it should be trusted"), handshake TdMismatch;
    /// The server is another workload than the one that was called.
    IdMismatch = Outcome::deny("id_mismatch", Stage::Handshake, Flag::TlsFailure,
        "another workload answers at this address; correct identities, or find out which one it is"), handshake IdMismatch;
    /// The server outside of the mesh has a certificate for other names than the expected one.
    ServerNameMismatch = Outcome::deny("server_name_mismatch", Stage::Handshake, Flag::TlsFailure,
        "the external server's certificate is for other names, which `error` lists; correct sni or subjectAltNames, or find out who answers there"), handshake ServerNameMismatch;
    /// A client outside of the mesh asks for a server name that no certificate is for, or sends none.
    UnknownServerName = Outcome::deny("unknown_server_name", Stage::Handshake, Flag::TlsFailure,
        "no certificate of this gateway listener is for the server name that the client sent; add one under tls.certificates, or correct the client"), handshake UnknownServerName;
    /// The peers share no TLS version, group or suite, or the peer does not speak TLS.
    Protocol = Outcome::deny("protocol", Stage::Handshake, Flag::TlsFailure,
        "the peer and this proxy share no TLS version, group or suite, or the peer does not speak TLS; see tls.minVersion"), handshake Protocol;
    /// The peer refused the handshake with an alert.
    PeerAlert = Outcome::deny("peer_alert", Stage::Handshake, Flag::TlsFailure,
        "the peer refused; its own log says why"), handshake PeerAlert;
    /// The peer closed the connection during the handshake.
    PeerClosed = Outcome::deny("peer_closed", Stage::Handshake, Flag::TlsFailure,
        "the peer closed during the handshake; its own log may say why"), handshake PeerClosed;
    /// The connection was reset during the handshake.
    HandshakeReset = Outcome::deny("handshake_reset", Stage::Handshake, Flag::TlsFailure,
        "the peer reset the connection during the handshake; its own log may say why"), handshake Reset;
    /// Reading or writing failed during the handshake.
    HandshakeIo = Outcome::deny("handshake_io", Stage::Handshake, Flag::TlsFailure,
        "the network failed during the handshake"), handshake Io;
    /// This proxy has no certificate of its own to present.
    NoIdentity = Outcome::deny("no_identity", Stage::Handshake, Flag::IdentityError,
        "this proxy has no valid certificate of its own; see `identity` and /healthz/ready");
    /// The client went away before anything was decided.
    ClientGone = Outcome::deny("client_gone", Stage::Detection, Flag::Abandoned,
        "the client went away before anything was decided");
    /// The app could not be dialled.
    AppUnreachable = Outcome::deny("app_unreachable", Stage::Connect, Flag::Connect,
        "the app does not listen on that address (yet)");
    /// The app did not accept in time.
    AppTimeout = Outcome::deny("app_timeout", Stage::Connect, Flag::Connect,
        "the app did not accept within timeouts.connect");
    /// The destination could not be dialled.
    PeerUnreachable = Outcome::deny("peer_unreachable", Stage::Connect, Flag::Connect,
        "nothing listens at the destination, or its name does not resolve");
    /// The destination did not accept in time.
    PeerTimeout = Outcome::deny("peer_timeout", Stage::Connect, Flag::Connect,
        "the destination did not accept within timeouts.connect");
    /// A rule of a DENY policy matches the connection.
    AuthorizationDenied = Outcome::deny(authorization::DENIED, Stage::Authorization, Flag::Deny,
        "a rule of the DENY policy that `policy` names matches this connection; `error` says where it is written");
    /// ALLOW policies apply to the workload, and none matches the connection.
    AuthorizationNotAllowed = Outcome::deny(authorization::NOT_ALLOWED, Stage::Authorization, Flag::Deny,
        "no rule of the ALLOW policies that `error` names matches this connection; add one for this peer if it may connect");
    /// The destination is this proxy itself.
    Loop = Outcome::deny(outcome::LOOP, Stage::Routing, Flag::Deny,
        "the destination is a port of this proxy itself");
    /// A connection to a transparent listener was not redirected there.
    NoOriginalDestination = Outcome::deny("no_original_destination", Stage::Routing, Flag::Deny,
        "the transparent listener was dialled directly; only redirected connections belong there");
    /// A captured connection was for an address that this host does not have.
    ForeignDestination = Outcome::deny("foreign_destination", Stage::Routing, Flag::Deny,
        "the captured connection was for another host's address; redirect only what is for this host, by destination as well");
    /// Neither a route nor the service directory names the destination, and `outbound.trafficPolicy` is `REGISTRY_ONLY`.
    NoRoute = Outcome::deny("no_route", Stage::Routing, Flag::Deny,
        "neither a route nor a ServiceEntry names this destination and outbound.trafficPolicy is REGISTRY_ONLY");
    /// No route matches the destination, but a host of a route does not resolve, so the address may belong to it.
    NameUnresolved = Outcome::deny("name_unresolved", Stage::Routing, Flag::Deny,
        "a name of an mtls route or service could not be looked up, so this address may belong to it; fix DNS, or list addresses");
    /// Two routes match the destination and disagree.
    RouteConflict = Outcome::deny("route_conflict", Stage::Routing, Flag::Deny,
        "two routes match this address with different modes or identities; make them agree");
    /// Two services of the directory claim the destination and are reached in different ways.
    ServiceConflict = Outcome::deny("service_conflict", Stage::Routing, Flag::Deny,
        "the ServiceEntries that `error` names claim this destination and are reached in different ways; make them agree");
    /// A listener with `mode: auto` leads to a service, port or subset that the directory does not have.
    NoService = Outcome::deny("no_service", Stage::Routing, Flag::Deny,
        "no ServiceEntry that this workload sees has this host, port and subset; add one, or give the listener mode: mtls or plaintext");
    /// The service has no endpoint that could be dialled.
    NoEndpoint = Outcome::deny("no_endpoint", Stage::Routing, Flag::Connect,
        "the service has no endpoint now: none is declared or selected, or no name of one resolves");
    /// The endpoint has a sidecar, and the directory does not say which identity it has.
    NoServerIdentity = Outcome::deny("no_server_identity", Stage::Routing, Flag::Deny,
        "the endpoint is to be reached over mTLS and no identity is declared for it; set its serviceAccount, or subjectAltNames");
    /// The destination was reached over mTLS before, would get plaintext now, and `outbound.downgrade` is `refuse`.
    Downgrade = Outcome::deny("downgrade", Stage::Routing, Flag::Deny,
        "this destination was reached over mTLS before and policies or the directory now say plaintext; if that is meant, restart the sidecar or set outbound.downgrade to warn");
    /// A certificate or key for TLS origination cannot be used.
    OriginationUnusable = Outcome::deny("origination_unusable", Stage::Routing, Flag::Deny,
        "a file that the DestinationRule names cannot be used, as `error` says; see outbound.tlsFolder");
    /// A request on an HBONE tunnel cannot be served.
    BadHboneRequest = Outcome::deny("bad_hbone_request", Stage::Routing, Flag::Deny,
        "the request on the tunnel is not a CONNECT to an IP:port of this workload, as `error` says; correct the peer");
    /// The peer did not answer an HBONE request with 200.
    HboneRefused = Outcome::deny("hbone_refused", Stage::Connect, Flag::Deny,
        "the peer's sidecar refused the stream: 401 is its authorization, 503 an app that it cannot reach, 400 a destination that is not its own; its own log says why");
    /// A tunnel to the peer failed before the answer.
    HboneFailed = Outcome::deny("hbone_failed", Stage::Connect, Flag::Connect,
        "the tunnel to the peer broke, or is full, before the stream was answered; check that HBONE is spoken at this port of the peer");
    /// A load balancer that must send a PROXY header sent none, or a bad one.
    BadProxyHeader = Outcome::deny("bad_proxy_header", Stage::Detection, Flag::Deny,
        "proxyProtocol.from names this load balancer, so its connections must begin with a PROXY header; make it send one (v1 or v2), or correct proxyProtocol.from");
    /// Plaintext at a gateway listener with TLS.
    PlaintextAtGateway = Outcome::deny("plaintext_at_gateway", Stage::Detection, Flag::Deny,
        "the client speaks plaintext to a gateway listener with tls; it must speak TLS, or use a listener without tls");
    /// No route of the gateway listener takes the server name that the client asked for.
    NoGatewayRoute = Outcome::deny("no_gateway_route", Stage::Routing, Flag::Deny,
        "no route of this gateway listener has a host for the server name in `error`; add one, or a route without hosts");
    /// The limit on open connections is reached.
    TooManyConnections = Outcome::deny("too_many_connections", Stage::Accept, Flag::Deny,
        "raise limits.connections, or find out which client opens so many");
    /// The limit on open connections of this listener is reached.
    TooManyOnListener = Outcome::deny("too_many_on_listener", Stage::Accept, Flag::Deny,
        "raise the limit of this listener, or find out which client opens so many");
    /// The limit on open connections of one peer is reached.
    TooManyOfPeer = Outcome::deny("too_many_of_peer", Stage::Handshake, Flag::Deny,
        "this peer has as many connections as limits.perIdentity allows; raise that, or find out why it opens so many");
    /// The limit on undecided connections was reached, and this was the oldest without a complete ClientHello.
    TooManyHandshakes = Outcome::deny("too_many_handshakes", Stage::Detection, Flag::Deny,
        "raise limits.handshakes, or find out which client opens connections and stays silent");
    /// The policy now in force would refuse this open connection.
    PolicyChanged = Outcome::deny("policy_changed", Stage::Relay, Flag::Deny,
        "a policy that came into force since then refuses this connection");
    /// The credentials now in force no longer trust the peer of this open connection.
    TrustChanged = Outcome::deny("trust_changed", Stage::Relay, Flag::Deny,
        "credentials that came into force since then no longer trust this peer");
    /// No byte passed for too long.
    IdleTimeout = Outcome::allow("idle_timeout", Stage::Relay, Flag::None,
        "no byte passed within timeouts.idle");
    /// One side had ended its direction, and the other sent nothing for too long.
    HalfCloseTimeout = Outcome::allow("half_close_timeout", Stage::Relay, Flag::None,
        "one side had ended and the other sent nothing for too long");
    /// One side reset the connection.
    Reset = Outcome::allow("reset", Stage::Relay, Flag::None,
        "one side reset the connection, and the other was reset as well");
    /// TLS ended without `close_notify` while its direction was open.
    Truncated = Outcome::allow("truncated", Stage::Relay, Flag::None,
        "TLS ended without close_notify, so what was received may not be the whole");
    /// Reading or writing failed while bytes were copied.
    Error = Outcome::allow("error", Stage::Relay, Flag::None,
        "the network failed while bytes were copied");
    /// A record of an open TLS connection did not authenticate: it was changed, replayed or reordered on the way.
    TlsBadRecord = Outcome::deny("tls_bad_record", Stage::Relay, Flag::TlsFailure,
        "something between the peers changed, replayed or reordered TLS records; this proxy closed the connection");
    /// The peer broke the TLS protocol on an open connection.
    TlsProtocol = Outcome::deny("tls_protocol", Stage::Relay, Flag::TlsFailure,
        "the peer broke the TLS protocol after the handshake; this proxy closed the connection");
    /// The peer ended an open TLS connection with a fatal alert. In TLS 1.3 a server also refuses a client
    /// certificate this way, since the client completes its handshake first.
    TlsAlert = Outcome::deny("tls_alert", Stage::Relay, Flag::TlsFailure,
        "the peer ended TLS with the alert that `error` names; its own log says why");
    /// The proxy ended before the connection did.
    DrainForced = Outcome::allow("drain_forced", Stage::Any, Flag::None,
        "the proxy ended before the connection did; raise drain.grace if that matters");
    /// The proxy ended, or the task of the connection was cancelled, before anything else ended it.
    Shutdown = outcome::SHUTDOWN;
    /// A bug in this proxy.
    Panic = outcome::PANIC;
}

impl Reason {
    /// The stable label, in logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.outcome().label
    }
}

impl From<Reason> for &'static Outcome {
    fn from(reason: Reason) -> Self {
        reason.outcome()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
