"""Sidecars with something of everything that the page shows."""

import threading
import time
from contextlib import suppress

from rig.app import EchoApp, exchange
from rig.certificates import Authority
from rig.portcullis import Portcullis
from rig.processes import free_port

WEB, CART, PAY = (f"spiffe://cluster.local/ns/shop/sa/{name}" for name in ("web", "cart", "pay"))
_PERMISSIVE, _STRICT = "PERMISSIVE", "STRICT"


def policy(mode):
    """For the whole mesh."""
    return f"""\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: {mode}}}}}
"""


class Scene:
    """`web` calls `cart` and `pay` over mTLS. Somebody without a sidecar calls both in plaintext: `pay` is STRICT and refuses it,
    `cart` is PERMISSIVE until `strict` is called."""

    def __init__(self, binary, folder, processes):
        self.binary, self.processes, self.ended = binary, processes, threading.Event()
        self.calls_in_plaintext = True
        authority = Authority.portcullis(folder / "ca", binary)
        self.app = EchoApp()

        def sidecar(name, identity, mode):
            made = Portcullis(name, folder, binary, identity, authority.issue(folder / f"{name}-certs", identity), policy=policy(mode))
            made.config["workload"]["labels"] = {"app": name}
            return made

        self.cart, self.pay = sidecar("cart", CART, _PERMISSIVE), sidecar("pay", PAY, _STRICT)
        self.web = sidecar("web", WEB, _STRICT)
        ports = {made: made.inbound(_PERMISSIVE, self.app.port) for made in (self.cart, self.pay)}
        self.in_plaintext = list(ports.values())
        self.over_mtls = [self.web.outbound(ports[self.cart], CART), self.web.outbound(ports[self.pay], PAY)]
        self.all = (self.cart, self.pay, self.web)

    def start(self):
        for made in self.all:
            made.start(self.processes)
        threading.Thread(target=self._call, daemon=True).start()

    def _call(self):
        while not self.ended.is_set():
            for port in [*self.over_mtls, *(self.in_plaintext if self.calls_in_plaintext else [])]:
                with suppress(OSError):
                    exchange(port, size=200)
            time.sleep(0.3)

    def strict(self):
        self.calls_in_plaintext = False
        self.cart.write_document("modes.yaml", policy(_STRICT))

    def end(self):
        self.ended.set()

    def dashboard(self):
        """Starts the page of all sidecars; returns the process and its address."""
        port = free_port()
        asked = [argument for made in self.all for argument in ("--admin", f"127.0.0.1:{made.admin}")]
        command = [self.binary, "dashboard", "--no-browser", "--port", str(port), *asked]
        process = self.processes.start("dashboard", command)
        url = f"http://127.0.0.1:{port}/"
        self.processes.wait_until_ready(process, url)
        return process, url
