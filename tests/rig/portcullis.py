"""The product under test, as its users run it: a configuration file, a policy folder, and the binary."""

import json
import pathlib
import re
import urllib.request

from .certificates import CLIENT, SERVER, TRUST_DOMAIN
from .processes import free_port

# What the policy below calls the ports of the workload.
PORTS = {"STRICT": 8001, "PERMISSIVE": 8002, "DISABLE": 8003}

POLICY = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: modes, namespace: shop}
spec:
  selector: {matchLabels: {app: interop}}
  mtls: {mode: STRICT}
  portLevelMtls:
    8001: {mode: STRICT}
    8002: {mode: PERMISSIVE}
    8003: {mode: DISABLE}
"""

# Arguments for `records`. At this level every refusal has its own line; above it they are rate-limited.
JSON_LOG = ("--log-format", "json", "--log-level", "info,access=debug")

_ID = re.compile(r"spiffe://(?P<domain>[^/]+)/ns/(?P<namespace>[^/]+)/sa/(?P<account>[^/]+)")


class Portcullis:
    """One `portcullis proxy`; add ports and upstreams, then start it. `wrapper` is a command that runs the one behind
    it."""

    def __init__(self, name, folder, binary, spiffe_id, leaf, admin=None, policy=POLICY, wrapper=(), arguments=()):
        self.name = name
        self.folder = pathlib.Path(folder) / name
        self.binary = binary
        self.process = None
        self.admin = admin or free_port()
        self.policy = policy
        self.wrapper = wrapper
        self.arguments = arguments
        parts = _ID.fullmatch(spiffe_id)
        domain = parts["domain"]
        mesh = {"trustDomain": domain, "rootNamespace": "istio-system"}
        if domain != TRUST_DOMAIN:
            # So that the peer refuses, and not this side.
            mesh["trustDomainAliases"] = [TRUST_DOMAIN]
        self.config = {
            "workload": {
                "name": parts["account"], "namespace": parts["namespace"], "serviceAccount": parts["account"],
                "labels": {"app": "interop"},
            },
            "mesh": mesh,
            "policies": "policies",
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
        }
        if leaf:
            self.config["identity"] = {"files": {
                "certificate": leaf.certificate, "privateKey": leaf.key, "trustBundle": leaf.trust}}

    def inbound(self, mode, app):
        port = free_port()
        ports = self.config.setdefault("inbound", {}).setdefault("ports", [])
        ports.append({"listen": f"127.0.0.1:{port}", "port": PORTS[mode], "app": f"127.0.0.1:{app}"})
        return port

    def outbound(self, target, expected=SERVER):
        return self._upstream({"address": f"127.0.0.1:{target}", "mode": "mtls", "identities": [expected]})

    def tunnel(self, address, hbone_port, expected=SERVER):
        """By HBONE: `address` as the peer's policies name the port."""
        self.config.setdefault("outbound", {})["hbonePort"] = hbone_port
        return self._upstream({"address": address, "mode": "hbone", "identities": [expected]})

    def plaintext(self, target):
        return self._upstream({"address": f"127.0.0.1:{target}", "mode": "plaintext"})

    def auto(self, host, port):
        """As the service directory says."""
        return self._upstream({"address": f"{host}:{port}", "mode": "auto"})

    def _upstream(self, upstream):
        port = free_port()
        upstreams = self.config.setdefault("outbound", {}).setdefault("upstreams", [])
        upstreams.append({"listen": f"127.0.0.1:{port}", **upstream})
        return port

    def start(self, processes, ready=True, env=None):
        """Starts it and waits until it is ready, or, if it is not to become ready, until it answers at all."""
        (self.folder / "policies").mkdir(parents=True)
        self.write_policy()
        config = self.folder / "portcullis.yaml"
        # JSON is YAML.
        config.write_text(json.dumps(self.config, indent=1))
        command = [*self.wrapper, self.binary, "proxy", "--config", str(config), *self.arguments]
        self.process = processes.start(self.name, command, env)
        path = "/healthz/ready" if ready else "/stats/prometheus"
        processes.wait_until_ready(self.process, f"http://127.0.0.1:{self.admin}{path}")

    def write_policy(self):
        self.write_document("modes.yaml", self.policy)

    def write_document(self, name, text):
        """Puts a file in place at once, as an operator's tool should."""
        file = self.folder / "policies" / name
        file.with_name(".new").write_text(text)
        file.with_name(".new").rename(file)

    def exit_code(self, processes):
        """Starts it although it must not start; returns its exit code, or None if it runs after all."""
        try:
            self.start(processes)
        except Exception:
            return self.process.poll()
        return None

    def log(self):
        return pathlib.Path(self.process.log).read_text(errors="replace")

    def events(self):
        """Every complete line of the log, which is written with `JSON_LOG`."""
        lines = self.log().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def records(self):
        """The access log."""
        return [event for event in self.events() if event.get("target") == "access"]

    def metrics(self):
        """Values of metrics without labels, by name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats/prometheus", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def client(name, folder, binary, leaf, spiffe_id=CLIENT):
    return Portcullis(name, folder, binary, spiffe_id, leaf)


def server(name, folder, binary, leaf, spiffe_id=SERVER):
    return Portcullis(name, folder, binary, spiffe_id, leaf)
