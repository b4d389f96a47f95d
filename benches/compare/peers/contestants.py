"""The pairs: an outbound proxy that takes plaintext and speaks mTLS, and an inbound one that does the reverse.

Each runs on one thread, resumes no session, and demands a certificate of the same CA. Envoy and Portcullis verify the SPIFFE
IDs of both sides; HAProxy and nginx cannot, and verify the chain only (nginx not even that of the server, since it would
want a DNS name in it)."""

import contextlib
import os
import pathlib
import socket
import subprocess

from rig import packages, portcullis
from rig import envoy as envoys
from rig.certificates import CLIENT, SERVER, Authority
from rig.processes import RigError, free_port, until

from . import work


def generator(root):
    """Builds the load generator, which is also the app and the floor, and says where it is."""
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--release", "-p", "portcullis-benches", "--bin", "compare"],
                   cwd=root, check=True)
    return str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release" / "compare")


class Stage:
    """App, certificates and where things are; shared by all."""

    def __init__(self, folder, processes, binary, generator, root):
        self.folder, self.processes, self.binary, self.generator, self.root = folder, processes, binary, generator, root
        authority = Authority.portcullis(folder / "ca", binary)
        self.client, self.server = authority.issue(folder / "client", CLIENT), authority.issue(folder / "server", SERVER)
        self.app = self.listening("app", [generator, "app"])[1]

    def listening(self, name, command):
        """A process of the load generator that says where it listens: its pid and the port."""
        process = self.processes.start(name, command)
        log = pathlib.Path(process.log)
        if not until(lambda: log.read_text().endswith("\n"), 10):
            raise RigError(f"{name} does not start: {log.read_text()}")
        return process, int(log.read_text().split()[-1].rsplit(":", 1)[1])


class Pair:
    def __init__(self, name, port, processes):
        self.name, self.entry, self.processes = name, f"127.0.0.1:{port}", processes

    def pids(self):
        """Of workers too."""
        pids = [str(process.pid) for process in self.processes]
        for pid in pids:
            with contextlib.suppress(OSError):
                pids += pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return pids

    def processor_seconds(self):
        return work.processor_seconds(self.pids())

    def resident(self):
        return work.resident(self.pids())

    def end(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except Exception:
                process.kill()
                process.wait()


@contextlib.contextmanager
def running(name, port, processes):
    pair = Pair(name, port, processes)
    host, port = pair.entry.split(":")

    def answers():
        for process in processes:
            if process.poll() is not None:
                raise RigError(f"{process.name} ended: see {process.log}: {pathlib.Path(process.log).read_text()[-800:]}")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 2) as one:
            one.sendall((1).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"x")
            one.settimeout(2)
            return len(one.recv(1)) == 1
        return False
    try:
        if not until(answers, 20):
            raise RigError(f"{name} does not carry a request")
        pair.carry_one = answers
        yield pair
    finally:
        pair.end()


def floor(stage, name):
    inbound, port = stage.listening(f"{name}-in", [stage.generator, "relay", f"127.0.0.1:{stage.app}"])
    outbound, port = stage.listening(f"{name}-out", [stage.generator, "relay", f"127.0.0.1:{port}"])
    return running(name, port, [outbound, inbound])


def ours(stage, name, hbone=False, arguments=()):
    server = portcullis.server(f"{name}-in", stage.folder, stage.binary, stage.server)
    port = server.inbound("STRICT", stage.app)
    client = portcullis.client(f"{name}-out", stage.folder, stage.binary, stage.client)
    if hbone:
        tunnels = free_port()
        server.config["inbound"]["hbone"] = f"127.0.0.1:{tunnels}"
        # A stream names the port as policies do.
        entry = client.tunnel(f"127.0.0.1:{portcullis.PORTS['STRICT']}", tunnels)
    else:
        entry = client.outbound(port)
    for sidecar in (server, client):
        sidecar.config["workers"] = 1
        sidecar.arguments = arguments
        sidecar.start(stage.processes)
    return running(name, entry, [client.process, server.process])


def _variant(**options):
    return lambda stage, name: ours(stage, name, **options)


def envoy(stage, name):
    binary = envoys.install(stage.root / "target")
    server, client = (envoys.Envoy(f"{name}-{side}", stage.folder) for side in ("in", "out"))
    port = server.inbound("inbound", "STRICT", stage.app, stage.server, stage.server.trust)
    entry = client.outbound("outbound", port, stage.client, stage.client.trust)
    return running(name, entry, [each.start(binary, stage.processes) for each in (client, server)])


def haproxy(stage, name):
    packages.install({"haproxy": "haproxy"})
    pems = {}
    for side, leaf in (("client", stage.client), ("server", stage.server)):
        pems[side] = stage.folder / f"{name}-{side}.pem"
        pems[side].write_text("".join(pathlib.Path(file).read_text() for file in (leaf.certificate, leaf.key)))
    port, entry = free_port(), free_port()

    def start(side, frontend, backend):
        file = stage.folder / f"{name}-{side}.cfg"
        file.write_text(f"""\
global
    nbthread 1
    maxconn 5000
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen all
    bind 127.0.0.1:{frontend}
    server next 127.0.0.1:{backend}
""")
        return stage.processes.start(f"{name}-{side}", ["haproxy", "-db", "-f", str(file)])
    trust = stage.server.trust
    inbound = start("in", f"{port} ssl crt {pems['server']} ca-file {trust} verify required", stage.app)
    outbound = start("out", entry, f"{port} ssl crt {pems['client']} ca-file {trust} verify required no-ssl-reuse "
                     "force-tlsv13")
    return running(name, entry, [outbound, inbound])


def nginx(stage, name):
    packages.install({"nginx": "nginx-light",
                      (lambda: os.path.exists("/usr/lib/nginx/modules/ngx_stream_module.so")): "libnginx-mod-stream"})
    port, entry = free_port(), free_port()

    def start(side, server):
        folder = stage.folder / f"{name}-{side}"
        folder.mkdir()
        file = folder / "nginx.conf"
        file.write_text(f"""\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; worker_processes 1; user root; pid {folder}/pid; error_log stderr warn; worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
stream {{ server {{ tcp_nodelay on; {server} }} }}
""")
        return stage.processes.start(f"{name}-{side}", ["nginx", "-p", str(folder), "-c", str(file), "-e", "stderr"])
    leaf = stage.server
    inbound = start("in", f"listen 127.0.0.1:{port} ssl; ssl_certificate {leaf.certificate}; ssl_certificate_key {leaf.key}; "
                    f"ssl_client_certificate {leaf.trust}; ssl_verify_client on; ssl_protocols TLSv1.3; ssl_session_tickets off; "
                    f"ssl_session_cache off; proxy_pass 127.0.0.1:{stage.app};")
    leaf = stage.client
    outbound = start("out", f"listen 127.0.0.1:{entry}; proxy_pass 127.0.0.1:{port}; proxy_ssl on; proxy_ssl_protocols TLSv1.3; "
                     f"proxy_ssl_certificate {leaf.certificate}; proxy_ssl_certificate_key {leaf.key}; "
                     "proxy_ssl_session_reuse off;")
    return running(name, entry, [outbound, inbound])


ALL = {"floor": floor, "portcullis": ours, "envoy": envoy, "haproxy": haproxy, "nginx": nginx}
QUIET = ("--access-log", "off")
# With --hbone: one mTLS connection for each of the client's, and streams of tunnels, both also without a line for each.
HBONE = {"floor": floor, "portcullis": ours, "hbone": _variant(hbone=True),
         "portcullis-quiet": _variant(arguments=QUIET), "hbone-quiet": _variant(hbone=True, arguments=QUIET), "envoy": envoy}
