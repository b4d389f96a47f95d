"""HBONE with a real Envoy at the other end of the tunnel, and with nghttp2's clients."""

import contextlib
import shutil
import signal
import socket
import struct
import subprocess

from .app import EchoApp, exchange
from .certificates import CLIENT, SERVER, Authority, Set
from .envoy import Envoy
from .portcullis import JSON_LOG, Portcullis
from .processes import free_port, until

# As policies name the app's port.
PORT = 8001
RESET = b"reset me"
DENY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-web, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/web"]}}]}]}
"""


class App(EchoApp):
    """Echoes; resets a connection that asks for it, and counts those that were reset."""

    def __init__(self):
        self.resets = 0
        super().__init__()

    def converse(self, connection, received):
        try:
            while data := connection.recv(65536):
                received += data
                if received.endswith(RESET):
                    close_by_reset(connection)
                    return
                connection.sendall(data)
        except ConnectionResetError:
            self.resets += 1


def close_by_reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), 5)
    connection.settimeout(5)
    return connection


def alive(connection, text=b"ping"):
    """Whether what goes out comes back."""
    try:
        connection.sendall(text)
        return connection.recv(len(text), socket.MSG_WAITALL) == text
    except OSError:
        return False


def ending(connection):
    """`end`, `reset`, or what else came."""
    try:
        return "end" if not (more := connection.recv(100)) else repr(more)
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "nothing within 5 s"


class Side:
    """One direction: a port that leads through a tunnel to the app."""

    def __init__(self, name, port, app, report):
        self.name, self.port, self.app, self.report = name, port, app, report

    def check(self, case, expected, seen):
        self.report.add(self.name, case, expected, None if seen == expected else str(seen))

    def bytes_and_ends(self):
        for size in (0, 300_000, 5_000_000):
            self.check(f"{size} bytes and back, then each direction ends", "echoed", exchange(self.port, size=size)[0])

    def reset_by_app(self):
        """How the client's connection ended."""
        with connect(self.port) as connection:
            connection.sendall(RESET)
            return ending(connection)

    def reset_by_client(self, arrived):
        """Whether `arrived` came true."""
        connection = connect(self.port)
        alive(connection)
        close_by_reset(connection)
        return until(arrived, 5)

    def many(self, tunnels):
        """Fifty at once; `tunnels` counts handshakes so far."""
        connections = [connect(self.port) for _ in range(50)]
        self.check("fifty connections at once", True, all(alive(one) for one in connections))
        self.check("all of them through tunnels", 1, tunnels())
        for connection in connections:
            connection.close()


def sidecar(name, folder, binary, leaf, identity):
    return Portcullis(name, folder, binary, identity, leaf, arguments=JSON_LOG)


def count(sidecar, metric):
    """A metric with labels, by the beginning of its line."""
    return next((int(value) for name, value in sidecar.metrics().items() if name.startswith(metric)), 0)


def said(sidecar, **fields):
    """Whether a line of the access log has these fields."""
    wanted = {name.replace("_", "."): value for name, value in fields.items()}
    return until(lambda: any(all(line.get(n) == v for n, v in wanted.items()) for line in sidecar.records()), 5)


def from_envoy(folder, binary, envoy_binary, processes, report, leaves):
    """Envoy opens tunnels to us."""
    app, tunnels = App(), free_port()
    cart = sidecar("hbone-cart", folder, binary, leaves.server, SERVER)
    cart.config["inbound"] = {
        "hbone": f"127.0.0.1:{tunnels}",
        "ports": [
            {"listen": f"127.0.0.1:{free_port()}", "port": PORT, "app": f"127.0.0.1:{app.port}"},
            {"listen": f"127.0.0.1:{free_port()}", "port": 8002, "app": f"127.0.0.1:{free_port()}"},
        ],
    }
    cart.config["workers"] = 1
    cart.start(processes)
    envoy = Envoy("hbone-client", folder)
    port = envoy.hbone_outbound("tunnels", tunnels, f"127.0.0.1:{PORT}", leaves.client, leaves.root)
    dead = envoy.hbone_outbound("dead", tunnels, "127.0.0.1:8002", leaves.client, leaves.root)
    foreign = envoy.hbone_outbound("foreign", tunnels, f"192.0.2.77:{PORT}", leaves.client, leaves.root)
    stranger = envoy.hbone_outbound("stranger", tunnels, f"127.0.0.1:{PORT}", leaves.client_wrong_ca, leaves.root)
    raw = envoy.outbound("raw", tunnels, leaves.client, leaves.root, alpn=["h2"])
    envoy.start(envoy_binary, processes)

    side = Side("HBONE: Envoy -> portcullis", port, app, report)
    side.bytes_and_ends()
    side.check("the client's identity in the log", True, said(cart, src_identity=CLIENT, reason="-"))
    side.many(lambda: count(cart, "portcullis_handshake_seconds_count{reporter=\"destination\"}"))
    # Envoy makes an end of it for its own client, but what came to it was RST_STREAM.
    before = envoy.counter("http2.rx_reset")
    side.reset_by_app()
    side.check("a reset by the app is RST_STREAM", True, until(lambda: envoy.counter("http2.rx_reset") > before, 5))
    side.check("a reset by the client reaches the app", True, side.reset_by_client(lambda: app.resets == 1))
    side.check("an app that is gone", True, closed(dead) and said(cart, reason="app_unreachable"))
    side.check("an address of another host", True, closed(foreign) and said(cart, reason="foreign_destination"))
    side.check("a client of another CA", True, closed(stranger) and said(cart, reason="unknown_ca"))
    with connect(port) as kept:
        alive(kept)
        cart.write_document("deny.yaml", DENY)
        side.check("an open stream that a policy denies", True, ending(kept) in ("reset", "end")
                   and said(cart, reason="policy_changed"))
    side.check("a new stream that a policy denies", True, closed(port) and said(cart, reason="authorization_denied"))
    (cart.folder / "policies" / "deny.yaml").unlink()
    side.check("allowed again, on the same tunnel", True, until(lambda: exchange(port, size=1)[0] == "echoed", 5))
    nghttp2(tunnels, raw, leaves, side)
    with connect(port) as kept:
        alive(kept)
        cart.process.send_signal(signal.SIGTERM)
        until(lambda: closed(port), 5)
        side.check("a drain: an open stream goes on", True, alive(kept))
    side.check("a drain: it ends with the last stream", 0, wait(cart.process))


def closed(port):
    """Whether a connection gets nothing back."""
    try:
        with connect(port) as connection:
            connection.sendall(b"ping")
            return not connection.recv(4)
    except TimeoutError:
        return False
    except OSError:
        return True


def wait(process):
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(20)
    return "still running after 20 s"


def nghttp2(tunnels, raw, leaves, side):
    """What is no CONNECT, by clients that speak nothing else."""
    identity = [f"--cert={leaves.client.certificate}", f"--key={leaves.client.key}"]
    url = f"https://127.0.0.1:{tunnels}/"
    if not shutil.which("nghttp") or not shutil.which("h2load"):
        side.report.add(side.name, "nghttp2's clients", "skipped: they are not installed", None)
        return
    got = subprocess.run(["nghttp", "-nv", "--no-verify-peer", *identity, url], capture_output=True, text=True, timeout=20)
    side.check("nghttp: GET is answered with 400", True, ":status: 400" in got.stdout or got.stdout[-1000:])
    # It has no option for a certificate: an Envoy adds the TLS, and knows nothing of what is in it.
    with connect(side.port) as kept:
        alive(kept)
        load = subprocess.run(["h2load", "-n", "5000", "-c", "2", "-m", "50", f"http://127.0.0.1:{raw}/"],
                              capture_output=True, text=True, timeout=60)
        side.check("h2load: 5000 GETs are answered with 4xx", True, "5000 4xx" in load.stdout or load.stdout[-1000:])
        side.check("h2load: an open stream beside them goes on", True, alive(kept))


def to_envoy(folder, binary, envoy_binary, processes, report, leaves):
    """We open tunnels to Envoy."""
    app = App()
    envoy = Envoy("hbone-server", folder)
    takes = envoy.hbone_inbound("tunnels", app.port, leaves.server, leaves.root)
    answers = {status: envoy.hbone_inbound(f"answer-{status}", app.port, leaves.server, leaves.root, status)
               for status in (401, 503)}
    other = envoy.hbone_inbound("other", app.port, leaves.foreign, leaves.root)
    envoy.start(envoy_binary, processes)

    def web(name, tunnels):
        one = sidecar(name, folder, binary, leaves.client, CLIENT)
        port = free_port()
        one.config["outbound"] = {"hbonePort": tunnels, "upstreams": [{
            "listen": f"127.0.0.1:{port}", "address": f"127.0.0.1:{PORT}", "mode": "hbone", "identities": [SERVER]}]}
        one.config["workers"] = 1
        one.start(processes)
        return one, port

    client, port = web("hbone-web", takes)
    side = Side("HBONE: portcullis -> Envoy", port, app, report)
    side.bytes_and_ends()
    side.check("Envoy knows the client's identity", True, until(lambda: f"tunnels|{CLIENT}|" in envoy.log(), 5))
    handshakes = "portcullis_handshake_seconds_count{reporter=\"source\"}"
    side.many(lambda: count(client, handshakes))
    side.check("a reset by the app", "reset", side.reset_by_app())
    # Envoy makes an end of it for its app.
    before = envoy.counter("http2.rx_reset")
    side.check("a reset by the client is RST_STREAM", True,
               side.reset_by_client(lambda: envoy.counter("http2.rx_reset") > before))
    for status, tunnels in answers.items():
        refused, at = web(f"hbone-web-{status}", tunnels)
        side.check(f"an answer of {status}", True, closed(at) and said(refused, reason="hbone_refused"))
    stranger, at = web("hbone-web-other", other)
    side.check("another identity", True, closed(at) and said(stranger, reason="td_mismatch"))
    with connect(port) as kept:
        alive(kept)
        envoy.drain()
        # It says GOAWAY when it answers a request.
        side.check("a drain of Envoy: the request before GOAWAY", "echoed", exchange(port, size=1)[0])
        side.check("a drain of Envoy: GOAWAY", True, until(lambda: envoy.counter("http2.goaway_sent") > 0, 5))
        side.check("a drain of Envoy: another tunnel", True, until(
            lambda: exchange(port, size=1)[0] == "echoed" and count(client, handshakes) > 1, 5))
        side.check("a drain of Envoy: an open stream goes on", True, alive(kept))
    side.check("nothing in plaintext", False, any(line.get("transport") == "plaintext" for line in client.records()))


def run(folder, binary, envoy_binary, processes, report):
    folder.mkdir()
    leaves = Set(folder / "certs", Authority.portcullis(folder / "ca", binary))
    from_envoy(folder, binary, envoy_binary, processes, report, leaves)
    to_envoy(folder, binary, envoy_binary, processes, report, leaves)
