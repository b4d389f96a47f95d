"""What must pass and what must not between an outbound and an inbound proxy, Envoy or portcullis.

A `Pair` is one outbound and one inbound proxy. `Pair.ports` has the port to connect to for each client and server of the
table that the pair supports; the runner checks it against the table.
"""

import pathlib

from .app import EchoApp, exchange
from .certificates import CLIENT, FOREIGN, SERVER, Authority, Set
from .envoy import Envoy
from .portcullis import client, server
from .processes import RigError, until

PASSES, REFUSED = "passes", "refused"
MODES = ("STRICT", "PERMISSIVE", "DISABLE")

# (client, server, expected outcome). Servers named by a mode have a good certificate; the others are STRICT.
MODE_CASES = [
    ("mTLS", "STRICT", PASSES),
    ("mTLS", "PERMISSIVE", PASSES),
    ("mTLS", "DISABLE", REFUSED),
    ("plaintext", "STRICT", REFUSED),
    ("plaintext", "PERMISSIVE", PASSES),
    ("plaintext", "DISABLE", PASSES),
    ("the app's own TLS", "STRICT", REFUSED),
    ("the app's own TLS", "PERMISSIVE", PASSES),
    ("the app's own TLS", "DISABLE", PASSES),
]
WRONG_IDENTITY = [("mTLS, expecting another identity", "STRICT", REFUSED)]


def refusals(*clients):
    """These clients are refused wherever mTLS is terminated; PERMISSIVE does not mean "without certificate"."""
    return [(client, mode, REFUSED) for client in clients for mode in ("STRICT", "PERMISSIVE")]


def bad_servers(*servers):
    return [("mTLS", server, REFUSED) for server in servers]


# The reason that the refusing side must log, for each fault. Envoy logs none for a connection that no filter chain
# matches.
ENVOY_REASONS = {
    "wrong CA": "unable_to_get_local_issuer_certificate",
    "server of a wrong CA": "unable_to_get_local_issuer_certificate",
    "wrong trust domain": "SAN_matcher",
    "server of a wrong trust domain": "SAN_matcher",
    "mTLS, expecting another identity": "SAN_matcher",
    "a DNS name and no identity": "SAN_matcher",
    "expired certificate": "certificate_has_expired",
    "server with an expired certificate": "certificate_has_expired",
    "no certificate": "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    "the app's own TLS": "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    # The app answers the mesh hello with a certificate of its own.
    "DISABLE": "SAN_matcher",
}
PORTCULLIS_REASONS = {
    "wrong CA": "unknown_ca",
    "server of a wrong CA": "unknown_ca",
    "wrong trust domain": "td_mismatch",
    "server of a wrong trust domain": "td_mismatch",
    "mTLS, expecting another identity": "id_mismatch",
    "a DNS name and no identity": "bad_certificate",
    "two identities": "bad_certificate",
    "expired certificate": "expired",
    "server with an expired certificate": "expired",
    "no certificate": "no_certificate",
    "the app's own TLS": "no_certificate",
    "plaintext": "plaintext_in_strict",
    "DISABLE": "bad_certificate",
}


class Side:
    """The log of one side and the reasons in it; `own` are the clients whose fault the outbound side detects itself."""

    def __init__(self, log, reasons, own=()):
        self.log = log
        self.reasons = reasons
        self.own = own


class Pair:
    """One outbound and one inbound side with an app behind, running."""

    def __init__(self, name, folder, certificates):
        self.name = name
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.certificates = certificates
        self.app = EchoApp(certificates.app)
        self.cases = []
        # (client, server) -> port
        self.ports = {}
        self.inbound = None
        self.outbound = None

    def check(self, case, report):
        connecting, serving, expected = case
        port = self.ports.get((connecting, serving))
        if port is None:
            raise RigError(f"{self.name}: no port for {connecting} -> {serving}")
        seen = {side: len(side.log(connecting)) for side in (self.inbound, self.outbound)}
        outcome, payload = exchange(port, own_tls=connecting == "the app's own TLS")
        problem = self._problem(case, outcome, payload, lambda side: side.log(connecting)[seen[side]:])
        report.add(self.name, f"{connecting} -> {serving}", expected, problem)

    def _problem(self, case, outcome, payload, logged):
        """What differs from the expectation; `logged` returns what a side has logged since the case began."""
        connecting, serving, expected = case
        if expected == PASSES:
            if outcome != "echoed":
                return outcome
            if connecting == "mTLS" and not until(lambda: CLIENT in logged(self.inbound), 3):
                return f"the inbound log does not name {CLIENT}"
            return None
        if not outcome.startswith("closed"):
            return outcome
        if self.app.saw(payload):
            return "closed, but the payload reached the app"
        refusing, reason = self._reason(connecting, serving)
        if reason and not until(lambda: reason in logged(refusing), 3):
            return f"closed, but the log does not say {reason}: {logged(refusing)[-1000:]}"
        return None

    def _reason(self, connecting, serving):
        """The side that must refuse, and the reason that it must log."""
        if connecting.startswith("mTLS") or connecting in self.outbound.own:
            refusing = self.outbound
        else:
            refusing = self.inbound
        return refusing, refusing.reasons.get(serving if connecting == "mTLS" else connecting)


def envoy_inbound(pair, envoy):
    """All servers that an Envoy can play, by name; the Envoy is to be started by the caller."""
    leaves = pair.certificates
    ports = {mode: envoy.inbound(mode, mode, pair.app.port, leaves.server, leaves.root) for mode in MODES}
    for name, leaf in {
        "server of a wrong CA": leaves.server_wrong_ca,
        "server of a wrong trust domain": leaves.foreign,
        "server with an expired certificate": leaves.server_expired,
    }.items():
        # It must be the client that refuses, so this server takes every certificate of the good CA.
        ports[name] = envoy.inbound(name, "STRICT", pair.app.port, leaf, leaves.root)
    return ports


def envoy_outbound(pair, envoy, servers):
    leaves = pair.certificates
    good = {
        "mTLS": leaves.client,
        "wrong CA": leaves.client_wrong_ca,
        "wrong trust domain": leaves.foreign,
        "no certificate": None,
        "expired certificate": leaves.client_expired,
        "a DNS name and no identity": leaves.client_dns_only,
        "two identities": leaves.client_two_ids,
    }
    for connecting, serving, _ in pair.cases:
        name, target = f"{connecting} -> {serving}", servers[serving]
        if connecting in ("plaintext", "the app's own TLS"):
            port = envoy.plaintext(name, target)
        elif connecting == "mTLS, expecting another identity":
            port = envoy.outbound(name, target, leaves.client, leaves.root, "spiffe://cluster.local/ns/shop/sa/other")
        else:
            port = envoy.outbound(name, target, good[connecting], leaves.root)
        pair.ports[connecting, serving] = port


def envoy_to_envoy(folder, binary, envoy_binary, processes):
    """Proves the rig: these are measured facts about Envoy, so a miss here is a mistake of ours."""
    pair = Pair("Envoy -> Envoy", folder, Set(folder.with_suffix(".certs"), Authority.openssl(
        folder.with_suffix(".ca"))))
    pair.cases = [
        *MODE_CASES,
        *WRONG_IDENTITY,
        *refusals("wrong CA", "wrong trust domain", "no certificate", "expired certificate",
                  "a DNS name and no identity"),
        *bad_servers("server of a wrong CA", "server of a wrong trust domain", "server with an expired certificate"),
        # Envoy is content when one of several identities will do.
        ("two identities", "STRICT", PASSES),
    ]
    inbound = Envoy("self-inbound", pair.folder)
    outbound = Envoy("self-outbound", pair.folder)
    envoy_outbound(pair, outbound, envoy_inbound(pair, inbound))
    inbound.start(envoy_binary, processes)
    outbound.start(envoy_binary, processes)
    pair.inbound = Side(lambda _: inbound.log(), ENVOY_REASONS)
    pair.outbound = Side(lambda _: outbound.log(), ENVOY_REASONS)
    return pair


def envoy_to_portcullis(folder, binary, envoy_binary, processes):
    leaves = Set(folder.with_suffix(".certs"), Authority.portcullis(folder.with_suffix(".ca"), binary))
    pair = Pair("Envoy -> portcullis", folder, leaves)
    pair.cases = [
        *MODE_CASES,
        *WRONG_IDENTITY,
        *refusals("wrong CA", "wrong trust domain", "no certificate", "expired certificate",
                  "a DNS name and no identity", "two identities"),
        *bad_servers("server of a wrong CA", "server of a wrong trust domain"),
    ]
    good = server("in", pair.folder, binary, leaves.server)
    wrong_ca = server("in-wrong-ca", pair.folder, binary, leaves.server_wrong_ca)
    foreign = server("in-foreign", pair.folder, binary, leaves.foreign, FOREIGN)
    servers = {mode: good.inbound(mode, pair.app.port) for mode in MODES}
    servers["server of a wrong CA"] = wrong_ca.inbound("STRICT", pair.app.port)
    servers["server of a wrong trust domain"] = foreign.inbound("STRICT", pair.app.port)
    for each in (good, wrong_ca, foreign):
        each.start(processes)
    outbound = Envoy("out", pair.folder)
    envoy_outbound(pair, outbound, servers)
    outbound.start(envoy_binary, processes)
    pair.inbound = Side(lambda _: good.log(), PORTCULLIS_REASONS)
    pair.outbound = Side(lambda _: outbound.log(), ENVOY_REASONS)
    return pair


def portcullis_to_envoy(folder, binary, envoy_binary, processes):
    leaves = Set(folder.with_suffix(".certs"), Authority.portcullis(folder.with_suffix(".ca"), binary))
    pair = Pair("portcullis -> Envoy", folder, leaves)
    pair.cases = [
        *MODE_CASES,
        *WRONG_IDENTITY,
        *refusals("wrong CA", "wrong trust domain", "no certificate"),
        *bad_servers("server of a wrong CA", "server of a wrong trust domain", "server with an expired certificate"),
    ]
    inbound = Envoy("in", pair.folder)
    servers = envoy_inbound(pair, inbound)
    inbound.start(envoy_binary, processes)
    sidecars = {
        "mTLS": client("out", pair.folder, binary, leaves.client),
        "wrong CA": client("out-wrong-ca", pair.folder, binary, leaves.client_wrong_ca),
        "wrong trust domain": client("out-foreign", pair.folder, binary, leaves.foreign, FOREIGN),
        "no certificate": client("out-bare", pair.folder, binary, None),
    }
    for connecting, serving, _ in pair.cases:
        target = servers[serving]
        if connecting in ("plaintext", "the app's own TLS"):
            port = sidecars["mTLS"].plaintext(target)
        elif connecting == "mTLS, expecting another identity":
            port = sidecars["mTLS"].outbound(target, "spiffe://cluster.local/ns/shop/sa/other")
        else:
            port = sidecars[connecting].outbound(target, SERVER)
        pair.ports[connecting, serving] = port
    for name, sidecar in sidecars.items():
        sidecar.start(processes, ready=name != "no certificate")
    pair.inbound = Side(lambda _: inbound.log(), ENVOY_REASONS)
    # Without a certificate, our side does not even dial.
    reasons = {**PORTCULLIS_REASONS, "no certificate": "no_identity"}
    log = lambda connecting: sidecars.get(connecting, sidecars["mTLS"]).log()  # noqa: E731
    pair.outbound = Side(log, reasons, own=("no certificate",))
    return pair


def expired_start(folder, binary, processes, report):
    """Our own side cannot play the expired ones: it does not start with such a certificate."""
    leaves = Set(folder.with_suffix(".certs"), Authority.portcullis(folder.with_suffix(".ca"), binary))
    folder.mkdir()
    late = client("expired", folder, binary, leaves.client_expired)
    late.outbound(1)
    code = late.exit_code(processes)
    what = "still runs" if code is None else f"exit code {code}"
    report.add("portcullis alone", "own certificate expired -> exit code 65", REFUSED, None if code == 65 else what)
