"""What must pass and what must not between an outbound and an inbound side, whoever plays them.

A world is one pair of sides. It offers, for each client and server of the table that it can play, the port to connect
to; a case that it cannot play says so by being left out of `World.ports`, which the runner checks against the table.
"""

import pathlib

from .app import EchoApp, exchange
from .certificates import CLIENT, FOREIGN, SERVER, Authority, Set
from .envoy import Envoy
from .portcullis import client, server
from .processes import RigError, until

PASSES, REFUSED = "passes", "refused"
MODES = ("STRICT", "PERMISSIVE", "DISABLE")

# (client, server, what must happen). Servers named by a mode have a good certificate; the others are STRICT.
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


# What the side that refuses must write into its log, by what is wrong. Envoy has no words for a connection that no
# filter chain matches.
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
    """Where one side of a world writes, and in which words; `own` are the client's faults that it notices itself."""

    def __init__(self, log, reasons, own=()):
        self.log = log
        self.reasons = reasons
        self.own = own


class World:
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
            raise RigError(f"{self.name}: nobody plays {connecting} -> {serving}")
        seen = {side: len(side.log(connecting)) for side in (self.inbound, self.outbound)}
        outcome, payload = exchange(port, own_tls=connecting == "the app's own TLS")
        problem = self._problem(case, outcome, payload, lambda side: side.log(connecting)[seen[side]:])
        report.add(self.name, f"{connecting} -> {serving}", expected, problem)

    def _problem(self, case, outcome, payload, logged):
        """What is not as it should be; `logged` says what a side has written since the case began."""
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
        judge, reason = self._reason(connecting, serving)
        if reason and not until(lambda: reason in logged(judge), 3):
            return f"closed, but the log does not say {reason}: {logged(judge)[-1000:]}"
        return None

    def _reason(self, connecting, serving):
        """Who has to refuse, and what it has to say."""
        if connecting.startswith("mTLS") or connecting in self.outbound.own:
            judge = self.outbound
        else:
            judge = self.inbound
        return judge, judge.reasons.get(serving if connecting == "mTLS" else connecting)


def envoy_inbound(world, envoy):
    """All servers that an Envoy can play, by name; the Envoy is to be started by the caller."""
    leaves = world.certificates
    ports = {mode: envoy.inbound(mode, mode, world.app.port, leaves.server, leaves.root) for mode in MODES}
    for name, leaf in {
        "server of a wrong CA": leaves.server_wrong_ca,
        "server of a wrong trust domain": leaves.foreign,
        "server with an expired certificate": leaves.server_expired,
    }.items():
        # It must be the client that refuses, so this server takes every certificate of the good CA.
        ports[name] = envoy.inbound(name, "STRICT", world.app.port, leaf, leaves.root)
    return ports


def envoy_outbound(world, envoy, servers):
    leaves = world.certificates
    good = {
        "mTLS": leaves.client,
        "wrong CA": leaves.client_wrong_ca,
        "wrong trust domain": leaves.foreign,
        "no certificate": None,
        "expired certificate": leaves.client_expired,
        "a DNS name and no identity": leaves.client_dns_only,
        "two identities": leaves.client_two_ids,
    }
    for connecting, serving, _ in world.cases:
        name, target = f"{connecting} -> {serving}", servers[serving]
        if connecting in ("plaintext", "the app's own TLS"):
            port = envoy.plaintext(name, target)
        elif connecting == "mTLS, expecting another identity":
            port = envoy.outbound(name, target, leaves.client, leaves.root, "spiffe://cluster.local/ns/shop/sa/other")
        else:
            port = envoy.outbound(name, target, good[connecting], leaves.root)
        world.ports[connecting, serving] = port


def envoy_to_envoy(folder, binary, envoy_binary, processes):
    """Proves the rig: these are measured facts about Envoy, so a miss here is a mistake of ours."""
    world = World("Envoy -> Envoy", folder, Set(folder.with_suffix(".certs"), Authority.openssl(
        folder.with_suffix(".ca"))))
    world.cases = [
        *MODE_CASES,
        *WRONG_IDENTITY,
        *refusals("wrong CA", "wrong trust domain", "no certificate", "expired certificate",
                  "a DNS name and no identity"),
        *bad_servers("server of a wrong CA", "server of a wrong trust domain", "server with an expired certificate"),
        # Envoy is content when one of several identities will do.
        ("two identities", "STRICT", PASSES),
    ]
    inbound = Envoy("self-inbound", world.folder)
    outbound = Envoy("self-outbound", world.folder)
    envoy_outbound(world, outbound, envoy_inbound(world, inbound))
    inbound.start(envoy_binary, processes)
    outbound.start(envoy_binary, processes)
    world.inbound = Side(lambda _: inbound.log(), ENVOY_REASONS)
    world.outbound = Side(lambda _: outbound.log(), ENVOY_REASONS)
    return world


def envoy_to_portcullis(folder, binary, envoy_binary, processes):
    leaves = Set(folder.with_suffix(".certs"), Authority.portcullis(folder.with_suffix(".ca"), binary))
    world = World("Envoy -> portcullis", folder, leaves)
    world.cases = [
        *MODE_CASES,
        *WRONG_IDENTITY,
        *refusals("wrong CA", "wrong trust domain", "no certificate", "expired certificate",
                  "a DNS name and no identity", "two identities"),
        *bad_servers("server of a wrong CA", "server of a wrong trust domain"),
    ]
    good = server("in", world.folder, binary, leaves.server)
    wrong_ca = server("in-wrong-ca", world.folder, binary, leaves.server_wrong_ca)
    foreign = server("in-foreign", world.folder, binary, leaves.foreign, FOREIGN)
    servers = {mode: good.inbound(mode, world.app.port) for mode in MODES}
    servers["server of a wrong CA"] = wrong_ca.inbound("STRICT", world.app.port)
    servers["server of a wrong trust domain"] = foreign.inbound("STRICT", world.app.port)
    for each in (good, wrong_ca, foreign):
        each.start(processes)
    outbound = Envoy("out", world.folder)
    envoy_outbound(world, outbound, servers)
    outbound.start(envoy_binary, processes)
    world.inbound = Side(lambda _: good.log(), PORTCULLIS_REASONS)
    world.outbound = Side(lambda _: outbound.log(), ENVOY_REASONS)
    return world


def portcullis_to_envoy(folder, binary, envoy_binary, processes):
    leaves = Set(folder.with_suffix(".certs"), Authority.portcullis(folder.with_suffix(".ca"), binary))
    world = World("portcullis -> Envoy", folder, leaves)
    world.cases = [
        *MODE_CASES,
        *WRONG_IDENTITY,
        *refusals("wrong CA", "wrong trust domain", "no certificate"),
        *bad_servers("server of a wrong CA", "server of a wrong trust domain", "server with an expired certificate"),
    ]
    inbound = Envoy("in", world.folder)
    servers = envoy_inbound(world, inbound)
    inbound.start(envoy_binary, processes)
    sidecars = {
        "mTLS": client("out", world.folder, binary, leaves.client),
        "wrong CA": client("out-wrong-ca", world.folder, binary, leaves.client_wrong_ca),
        "wrong trust domain": client("out-foreign", world.folder, binary, leaves.foreign, FOREIGN),
        "no certificate": client("out-bare", world.folder, binary, None),
    }
    for connecting, serving, _ in world.cases:
        target = servers[serving]
        if connecting in ("plaintext", "the app's own TLS"):
            port = sidecars["mTLS"].plaintext(target)
        elif connecting == "mTLS, expecting another identity":
            port = sidecars["mTLS"].outbound(target, "spiffe://cluster.local/ns/shop/sa/other")
        else:
            port = sidecars[connecting].outbound(target, SERVER)
        world.ports[connecting, serving] = port
    for name, sidecar in sidecars.items():
        sidecar.start(processes, ready=name != "no certificate")
    world.inbound = Side(lambda _: inbound.log(), ENVOY_REASONS)
    # Without a certificate, our side does not even dial.
    reasons = {**PORTCULLIS_REASONS, "no certificate": "no_identity"}
    log = lambda connecting: sidecars.get(connecting, sidecars["mTLS"]).log()  # noqa: E731
    world.outbound = Side(log, reasons, own=("no certificate",))
    return world


def expired_start(folder, binary, processes, report):
    """Our own side cannot play the expired ones: it does not start with such a certificate."""
    leaves = Set(folder.with_suffix(".certs"), Authority.portcullis(folder.with_suffix(".ca"), binary))
    folder.mkdir()
    late = client("expired", folder, binary, leaves.client_expired)
    late.outbound(1)
    code = late.exit_code(processes)
    what = "still runs" if code is None else f"exit code {code}"
    report.add("portcullis alone", "own certificate expired -> exit code 65", REFUSED, None if code == 65 else what)
