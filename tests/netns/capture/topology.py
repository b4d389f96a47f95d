"""Client and server side with their sidecars and apps, and `expect`, which checks a connection's outcome and its access
log lines."""

import os
import pathlib
import re
import time
import urllib.request

from rig.app import exchange
from rig.certificates import CLIENT, SERVER, Authority
from rig.portcullis import JSON_LOG, Portcullis
from rig.processes import RigError, until

from .apps import DigestApp, EchoApp, GreetingApp, ProxyProtocolApp
from .namespaces import DIRECT, INBOUND, OUTBOUND, SIDECAR_UID, Namespace

ADMIN, HEALTH = 15000, 15021

# Ports of the app; `_MODES` has the mode of each.
STRICT, PERMISSIVE, DISABLE, WORKLOAD = 8001, 8002, 8003, 8004
DIGEST_STRICT, DIGEST_PERMISSIVE, DIGEST_DISABLE = 8011, 8012, 8013
MYSQL, GREETING_STRICT, GREETING_DISABLE = 3306, 8021, 8023
# Ports without a listener.
DOWN_STRICT, DOWN_PERMISSIVE = 8031, 8032
# The app listens on loopback only; the second is not in `inbound.apps`.
MAPPED, UNMAPPED = 8041, 8042
# In `inbound.proxyProtocolPorts`.
PROXY_PROTOCOL = 8051
# A port that changes to or from DISABLE admits both for half a second; a little more.
TRANSITION = 0.6
# The client's own app.
OWN = 8091

_MODES = {
    STRICT: "STRICT", PERMISSIVE: "PERMISSIVE", DISABLE: "DISABLE",
    DIGEST_PERMISSIVE: "PERMISSIVE", DIGEST_DISABLE: "DISABLE",
    MYSQL: "PERMISSIVE", GREETING_DISABLE: "DISABLE", DOWN_PERMISSIVE: "PERMISSIVE", PROXY_PROTOCOL: "PERMISSIVE",
}

# The server's address for each thing that a route of the client can say, by its last number.
MTLS, BY_NAME, MOVED, PLAINTEXT, CONFLICT, UNKNOWN, WRONG = 2, 3, 4, 5, 6, 7, 8
# Further ones, for the service directory: an endpoint, a server outside of the mesh, and one that nothing names.
DECLARED, EXTERNAL, UNKNOWN_TOO = 9, 10, 11
NAME = "cart.test"
# The only ports that the mTLS route does not name.
UNROUTED = (DIGEST_DISABLE, GREETING_DISABLE)


def policy(workload="STRICT", **changes):
    """A policy of the server's workload; `changes` are modes of ports, as `p8001="PERMISSIVE"`."""
    modes = {**_MODES, **{int(port[1:]): mode for port, mode in changes.items()}}
    ports = "".join(f"    {port}: {{mode: {mode}}}\n" for port, mode in modes.items())
    return f"""\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: modes, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: interop}}}}
  mtls: {{mode: {workload}}}
  portLevelMtls:
{ports}"""


def routes():
    """What the client's side does with each address of the server, both families alike."""
    def to(host):
        return [f"192.0.2.{host}/32", f"2001:db8::{host}"]

    mtls = {"mode": "mtls", "identities": [SERVER]}
    other = {"mode": "mtls", "identities": ["spiffe://cluster.local/ns/shop/sa/other"]}
    ports = [port for port in ALL_PORTS if port not in UNROUTED]
    return [
        {"cidrs": to(MTLS), "ports": ports, **mtls},
        {"hosts": [NAME], **mtls},
        {"cidrs": to(PLAINTEXT), "mode": "plaintext"},
        {"cidrs": to(CONFLICT), **mtls},
        {"cidrs": to(CONFLICT), "ports": [PERMISSIVE], "mode": "plaintext"},
        {"cidrs": to(WRONG), **other},
    ]


class Sidecar(Portcullis):
    """One sidecar in a namespace, both of its transparent listeners on."""

    def __init__(self, name, topology, namespace, spiffe_id, leaf, listen):
        super().__init__(name, topology.folder, topology.binary, spiffe_id, leaf, admin=ADMIN, policy=policy(),
                         wrapper=namespace.wrapper(), arguments=JSON_LOG)
        self.namespace = namespace
        self.config["health"] = {"listen": f"{listen}:{HEALTH}"}
        self.config["inbound"] = {"transparent": f"{listen}:{INBOUND}"}
        self.config["outbound"] = {"transparent": f"{listen}:{OUTBOUND}"}

    def start(self, processes):
        self.folder.mkdir()
        os.chown(self.folder, SIDECAR_UID, SIDECAR_UID)
        with self.namespace:
            super().start(processes)

    def stop(self):
        """Asks it to end and returns its exit code: 0 if no connection was left."""
        self.process.terminate()
        return self.process.wait(30)

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric_ports(self):
        """All values of the label `port` in its metrics."""
        with self.namespace, urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/stats/prometheus", timeout=5) as answer:
            return set(re.findall(r'portcullis_policy_decisions_total{.*\bport="([^"]*)"', answer.read().decode()))

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def sides():
    return Namespace("client", [1]), Namespace("server", range(MTLS, UNKNOWN_TOO + 1))


class Topology:
    """The two namespaces with their apps, sidecars and certificates."""

    def __init__(self, folder, binary, sides, processes, report):
        self.folder = folder
        self.binary = binary
        self.processes = processes
        self.report = report
        self.client, self.server = sides
        self.apps = {}
        self.outbound = None
        self.inbound = None
        authority = Authority.portcullis(folder / "ca", binary)
        self.leaves = {id: authority.issue(folder / name, id) for name, id in (("web", CLIENT), ("cart", SERVER))}
        for leaf in self.leaves.values():
            for file in (leaf.certificate, leaf.key, leaf.trust):
                os.chown(file, SIDECAR_UID, SIDECAR_UID)

    def start_apps(self):
        def serve(app, port, host="::"):
            self.apps[port, host] = app(listener=self.server.listen(port, host))

        for port in (STRICT, PERMISSIVE, DISABLE, WORKLOAD):
            serve(EchoApp, port)
        for port in (DIGEST_STRICT, DIGEST_PERMISSIVE, DIGEST_DISABLE):
            serve(DigestApp, port)
        for port in (MYSQL, GREETING_STRICT, GREETING_DISABLE):
            serve(GreetingApp, port)
        serve(ProxyProtocolApp, PROXY_PROTOCOL)
        for port in (MAPPED, UNMAPPED):
            serve(EchoApp, port, "127.0.0.1")
        self.apps[OWN, "client"] = EchoApp(listener=self.client.listen(OWN))

    def start_sidecars(self, suffix, listen="[::]", otherwise="plaintext", directory=None):
        """With routes, or with a service directory, which are documents of the client's policy folder."""
        self.client.write_hosts({} if directory else {NAME: [BY_NAME]})
        self.outbound = Sidecar(f"out-{suffix}", self, self.client, CLIENT, self.leaves[CLIENT], listen)
        if directory:
            self.outbound.config["outbound"]["trafficPolicy"] = {"plaintext": "ALLOW_ANY", "refuse": "REGISTRY_ONLY"}[otherwise]
            self.outbound.policy += directory
        else:
            self.outbound.config["outbound"].update(routes=routes(), otherwise=otherwise)
        self.inbound = Sidecar(f"in-{suffix}", self, self.server, SERVER, self.leaves[SERVER], listen)
        self.inbound.config["inbound"]["apps"] = {str(MAPPED): f"127.0.0.1:{MAPPED}"}
        self.inbound.config["inbound"]["proxyProtocolPorts"] = [PROXY_PROTOCOL]
        for sidecar in (self.outbound, self.inbound):
            sidecar.start(self.processes)

    def stop_sidecars(self, group):
        for sidecar in (self.outbound, self.inbound):
            code = sidecar.stop()
            self.report.add(group, f"{sidecar.name} ends when asked", "exit code 0: no connection is left",
                            None if code == 0 else f"exit code {code}")
        self.outbound = self.inbound = None

    def change_policy(self, text, port, mode):
        """Writes the server's policy and waits until this mode of this port, and no other, is in force."""
        known = len(self.inbound.events())
        self.inbound.policy = text
        self.inbound.write_policy()

        def in_force():
            return [event for event in self.inbound.events()[known:] if event.get("message") == "inbound port"
                    and event.get("port") == port and event.get("mode") == mode]
        if not until(in_force, 10):
            raise RigError(f"the change to {mode} was not noticed: see {self.inbound.process.log}")
        if "DISABLE" in (mode, in_force()[0].get("was")):
            time.sleep(TRANSITION)

    # What clients do. `to` is (host, port).

    def through(self, to, mark=0, source=None):
        """Connects from the client's side: redirected to its sidecar, unless marked otherwise."""
        return lambda *_: self.client.connect(*to, mark, source=source)

    def without_sidecar(self, to):
        return self.through(to, DIRECT)

    def expect(self, group, case, act, outcome, outbound=None, inbound=None, app=None):
        """Runs `act`, which returns (outcome, payload), and reports whether

        - the outcome is this one,
        - each side wrote exactly one access line that has these fields, or none at all,
        - the app of this port, and no other, was dialled, and it saw the payload.
        """
        before = {sidecar: len(sidecar.records()) for sidecar in (self.outbound, self.inbound) if sidecar}
        dialled = {key: len(each.received) for key, each in self.apps.items()}
        try:
            seen, payload = act()
        except OSError as error:
            seen, payload = f"{type(error).__name__}: {error}", b""
        problems = [] if seen == outcome else [seen]
        for sidecar, fields in ((self.outbound, outbound), (self.inbound, inbound)):
            if sidecar:
                problems += _compare(sidecar, before[sidecar], fields)
        problems += self._reached(dialled, app, payload)
        self.report.add(group, case, outcome, "; ".join(problems) or None)

    def _reached(self, before, app, payload):
        def new():
            return {key[0]: each.received[before[key]:] for key, each in self.apps.items()
                    if len(each.received) > before[key]}

        if app is None:
            return [f"the app was dialled on {', '.join(map(str, new()))}"] if new() else []
        # The app may be behind its client.
        until(lambda: app in new() and payload in bytes(new()[app][0]), 2)
        problems = [f"the app was dialled on {port} as well" for port in new() if port != app]
        if len(new().get(app, ())) != 1:
            problems.append(f"the app was dialled {len(new().get(app, ()))} times on {app}")
        elif payload not in bytes(new()[app][0]):
            problems.append("the app did not see the payload")
        return problems


def echo(connect, size=100_000):
    """An act: sends and is echoed, or is `closed`, however."""
    def act():
        seen, payload = exchange(None, size=size, connect=connect)
        return "closed" if seen.startswith("closed") else seen, payload
    return act


def _compare(sidecar, before, fields):
    """What is wrong with the access lines since `before`."""
    def new():
        return sidecar.records()[before:]

    if sidecar.process.poll() is not None:
        raise RigError(f"{sidecar.name} ended with exit code {sidecar.process.returncode}: see {sidecar.process.log}")
    if fields is not None:
        until(new, 2)
    # The absence of a line cannot be awaited.
    time.sleep(0.05)
    lines = new()
    if len(lines) != (fields is not None):
        return [f"{sidecar.name} wrote {len(lines)} lines, not {int(fields is not None)}: {lines[:3]}"]
    if fields is None:
        return []
    wrong = {key: lines[0].get(key) for key, value in fields.items() if not _same(lines[0].get(key), value)}
    return [f"{sidecar.name} logged {wrong}, not { {key: fields[key] for key in wrong} }"] if wrong else []


def _same(seen, wanted):
    return wanted(seen) if callable(wanted) else seen == wanted


ALL_PORTS = (STRICT, PERMISSIVE, DISABLE, WORKLOAD, DIGEST_STRICT, DIGEST_PERMISSIVE, DIGEST_DISABLE,
             MYSQL, GREETING_STRICT, GREETING_DISABLE, DOWN_STRICT, DOWN_PERMISSIVE, MAPPED, UNMAPPED, PROXY_PROTOCOL,
             # The real servers, see there.
             8101, 6379, 5432, 25)
