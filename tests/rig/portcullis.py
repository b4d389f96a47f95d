"""The product under test, as its users run it: a configuration file, a policy folder, and the binary."""

import json
import pathlib
import re

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

    def plaintext(self, target):
        return self._upstream({"address": f"127.0.0.1:{target}", "mode": "plaintext"})

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
        """Puts `self.policy` in place at once, as an operator's tool should."""
        file = self.folder / "policies" / "modes.yaml"
        file.with_name(".new").write_text(self.policy)
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


def client(name, folder, binary, leaf, spiffe_id=CLIENT):
    return Portcullis(name, folder, binary, spiffe_id, leaf)


def server(name, folder, binary, leaf, spiffe_id=SERVER):
    return Portcullis(name, folder, binary, spiffe_id, leaf)
