"""Sidecars with traffic of every kind that dashboard and alerts show."""

import socket
import threading
import time
from contextlib import suppress

from rig.app import EchoApp, exchange
from rig.certificates import CLIENT, SERVER, Authority
from rig.portcullis import POLICY, Portcullis
from rig.processes import free_port

# Evaluated beside the policy in force: it would refuse the plaintext of 8002.
DRY_RUN = """\
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: planned, namespace: shop, annotations: {istio.io/dry-run: "true", portcullis/expires: "2999-12-31"}}
spec:
  selector: {matchLabels: {app: interop}}
  mtls: {mode: STRICT}
"""
BREAK_GLASS = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: open, namespace: shop, annotations: {{portcullis/until: "{until}", portcullis/reason: test}}}}
spec:
  selector: {{matchLabels: {{app: interop}}}}
  mtls: {{mode: PERMISSIVE}}
"""
CANDIDATE = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: next, namespace: shop}
spec:
  mtls: {mode: STRICT}
"""


class Mesh:
    """`cart` serves, `web` calls it, and three have trouble: `lonely` has no CA, `late` a certificate that ends soon, and `gone`
    ended."""

    def __init__(self, binary, folder, processes):
        self.folder, self.processes, self.ended = folder, processes, threading.Event()
        self.authority = Authority.portcullis(folder / "ca", binary)
        app = EchoApp()

        def sidecar(name, spiffe_id, leaf, **options):
            made = Portcullis(name, folder, binary, spiffe_id, leaf, **options)
            made.config["metrics"] = {"listen": f"127.0.0.1:{free_port()}"}
            return made

        self.cart = sidecar("cart", SERVER, self.authority.issue(folder / "cart-certs", SERVER), policy=POLICY + DRY_RUN)
        self.cart.config["policies"] = {"folder": "policies", "candidates": ["candidate"]}
        candidate = folder / "cart" / "candidate"
        candidate.mkdir(parents=True)
        (candidate / "next.yaml").write_text(CANDIDATE)
        self.ports = {mode: self.cart.inbound(mode, app.port) for mode in ("STRICT", "PERMISSIVE", "DISABLE")}

        self.web = sidecar("web", CLIENT, self.authority.issue(folder / "web-certs", CLIENT))
        self.calls = [self.web.outbound(self.ports["STRICT"]), self.web.outbound(self.ports["PERMISSIVE"]),
                      # Another workload is expected there: the handshake fails.
                      self.web.outbound(self.ports["STRICT"], f"{SERVER}-other")]
        self.late_leaf = self.authority.issue(folder / "late-certs", CLIENT)
        self.late = sidecar("late", CLIENT, self.late_leaf)
        self.lonely = sidecar("lonely", CLIENT, None)
        token = folder / "token"
        token.write_text("a.b.c")
        token.chmod(0o600)
        self.lonely.config["identity"] = {"ca": {
            "address": f"127.0.0.1:{free_port()}", "trustBundle": str(self.authority.root), "tokenFile": str(token)}}
        self.all = {made.name: made for made in (self.cart, self.web, self.late, self.lonely)}

    def targets(self):
        ports = {name: made.config["metrics"]["listen"].rpartition(":")[2] for name, made in self.all.items()}
        return {**ports, "gone": free_port()}

    def start(self):
        for made in self.all.values():
            made.start(self.processes, ready=made is not self.lonely)

    def call(self):
        """Calls in the background, until `end`."""
        threading.Thread(target=self._call, daemon=True).start()

    def end(self):
        self.ended.set()

    def _call(self):
        # A connection that stays open: its bytes are to advance while it lives.
        lasting = socket.create_connection(("127.0.0.1", self.calls[0]), 5)
        while not self.ended.is_set():
            with suppress(OSError):
                lasting.sendall(b"x" * 1000)
                lasting.recv(65536)
            for port in [*self.calls, *self.ports.values()]:
                exchange(port, size=2000)
            time.sleep(0.2)

    def break_policy(self):
        self.cart.write_document("broken.yaml", "kind: PeerAuthentication\napiVersion: security.istio.io/v1\nspec: {mtls: {mode: STRIC}}\n")

    def break_glass(self):
        """Plaintext is let into `late` for ten minutes."""
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
        self.late.write_document("break-glass.yaml", BREAK_GLASS.format(until=until))

    def break_credentials(self):
        """`web` gets a key that is not its certificate's."""
        other = self.authority.issue(self.folder / "other-certs", CLIENT)
        _replace(self.web.config["identity"]["files"]["privateKey"], other.key)

    def shorten(self, name, seconds):
        """`late` gets a certificate that ends in so many seconds."""
        leaf = self.authority.sign(self.folder / name, f"URI:{CLIENT}", days=(-1, seconds / 86400))
        _replace(self.late_leaf.key, leaf.key)
        _replace(self.late_leaf.certificate, leaf.certificate)


def _replace(path, by):
    with open(by, "rb") as new, open(path, "r+b") as old:
        old.write(new.read())
        old.truncate()
