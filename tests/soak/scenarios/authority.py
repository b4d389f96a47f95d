"""A certificate authority that runs, is killed and starts again, and a mesh whose sidecars get their certificates from it."""

import json
import pathlib
import signal
import socket
import ssl
import subprocess
import time

from rig.certificates import CLIENT, SERVER
from rig.processes import RigError, free_port, run, until

from .mesh import Mesh, get

# No certificate has a shorter lifetime, and no hint is shorter.
REGISTRATIONS = """\
refreshHint: 1s
defaults: {{ttl: 60s, maxTtl: 60s}}
limits: {{perIdentityPerMinute: 1000, totalPerSecond: 1000}}
trustBundles: {bundles}
identities:
{identities}"""


class RunningAuthority:
    """One `portcullis ca run`."""

    def __init__(self, name, mesh, ids, domain="cluster.local", federated=None):
        self.name = name
        self.binary = mesh.context.binary
        self.processes = mesh.processes
        self.folder = mesh.folder / name
        self.bootstrap = mesh.folder / f"{name}-bootstrap"
        self.port = free_port()
        self.kills = 0
        run([self.binary, "ca", "init", "--dir", self.folder, "--trust-domain", domain])
        (self.folder / "identities.yaml").write_text(REGISTRATIONS.format(
            bundles=json.dumps(federated or {}), identities="".join(f"- id: {spiffe}\n" for spiffe in ids)))

    def start(self):
        self.process = self.processes.start(self.name, [
            self.binary, "ca", "run", "--dir", str(self.folder), "--listen", f"127.0.0.1:{self.port}",
            "--bootstrap", str(self.bootstrap)])
        if not until(lambda: self.ask("status", check=False) is not None, 20):
            raise RigError(f"the authority {self.name} does not answer:\n{pathlib.Path(self.process.log).read_text()[-2000:]}")
        return self

    def kill(self):
        """Kills the CA with SIGKILL and starts it again."""
        self.process.kill()
        self.process.wait()
        self.kills += 1
        self.start()

    def identity(self, spiffe):
        """The section `identity` of a sidecar's configuration for this CA."""
        folder = self.bootstrap / pathlib.Path(*spiffe.split("/")[4::2])
        return {"ca": {"address": f"127.0.0.1:{self.port}", "trustBundle": str(folder / "root-cert.pem"),
                       "tokenFile": str(folder / "token"), "ttl": "60s"}}

    def ask(self, *words, check=True):
        """The JSON output of a `ca` command; `None` if it failed and `check` is false."""
        done = subprocess.run([self.binary, "ca", *words, "--dir", str(self.folder), "-o", "json"],
                              capture_output=True, text=True, timeout=20)
        if done.returncode:
            if check:
                raise RigError(f"ca {' '.join(words)}: exit code {done.returncode}: {done.stderr}")
            return None
        return json.loads(done.stdout)

    def step(self, step, seconds=20):
        """Retries a rotation step until it is accepted; returns how long that took."""
        began = time.monotonic()
        if not until(lambda: self.ask("rotate-root", step, check=False) is not None, seconds):
            raise RigError(f"{step} is refused for {seconds} s: {self.rotation_status()}")
        return time.monotonic() - began

    def roots(self):
        """The roots that the CA publishes now, for a federated trust domain."""
        done = subprocess.run([self.binary, "ca", "roots", "--dir", str(self.folder)], capture_output=True, text=True,
                              check=True, timeout=20)
        return done.stdout

    def rotation_status(self):
        return self.ask("rotate-root", "status")

    def issued(self, spiffe, by=None):
        """The serial numbers in the audit log for an identity, in order."""
        lines = map(json.loads, (self.folder / "audit.jsonl").read_text().splitlines())
        return [int(line["serial"], 16) for line in lines if line["event"] == "issued" and line["id"] == spiffe
                and by in (None, line["by"])]


class IssuedMesh(Mesh):
    """Sidecars with certificates from a CA. Certificates live for a minute; sidecars renew on SIGHUP or after half of that."""

    def _identities(self):
        self.ca = RunningAuthority("ca", self, (SERVER, CLIENT)).start()
        self.from_authorities({"cart": (self.ca, SERVER), "web": (self.ca, CLIENT)})
        return {"cart": None, "web": None}

    def from_authorities(self, sources):
        for name, (authority, spiffe) in sources.items():
            # On a busy machine all connections of a load may be in the handshake at once, from one address.
            self.changes[name].update(identity=authority.identity(spiffe), limits={"handshakes": 4096})

    def serial(self, sidecar):
        """The serial number of the certificate that a sidecar uses."""
        page = json.loads(get(sidecar.admin, "/certs")[1])
        return int(page["certificates"][0]["certChain"][0]["serialNumber"])

    def renewed(self, seconds=20):
        """Has both renew, and returns when both have new certificates in force."""
        for sidecar in (self.cart, self.web):
            before = self.serial(sidecar)
            end = time.monotonic() + seconds
            # A renewal too soon after another is delayed.
            while self.serial(sidecar) == before:
                if time.monotonic() > end:
                    raise RigError(f"{sidecar.name}: no new certificate in {seconds} s\n{sidecar.log()[-2000:]}")
                sidecar.process.send_signal(signal.SIGHUP)
                until(lambda: self.serial(sidecar) != before, 0.7)

    def refusals(self):
        """The refusals of both sidecars, by reason."""
        found = {}
        for sidecar in (self.cart, self.web):
            for line in get(sidecar.admin, "/stats/prometheus")[1].splitlines():
                if line.startswith("portcullis_policy_decisions_total{") and 'decision="allow"' not in line:
                    reason = line.split('reason="')[1].split('"')[0]
                    key = f"{sidecar.name}: {reason}"
                    found[key] = found.get(key, 0) + int(float(line.rsplit(" ", 1)[1]))
        return found

    def secured(self):
        """Inbound connections by how they were secured, as the app's sidecar counts them."""
        found = {}
        for line in get(self.cart.admin, "/stats/prometheus")[1].splitlines():
            if line.startswith("istio_tcp_connections_opened_total{") and 'reporter="destination"' in line:
                policy = line.split('connection_security_policy="')[1].split('"')[0]
                found[policy] = found.get(policy, 0) + int(float(line.rsplit(" ", 1)[1]))
        return found


def shown_serial(port):
    """The serial number of the certificate that a listener shows in a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as tls:
        return int.from_bytes(serial_of(tls.getpeercert(True)), "big")


def serial_of(der):
    """RFC 5280 4.1: the INTEGER behind the version, in the first SEQUENCE of the certificate."""
    def enter(at):
        length = der[at + 1]
        size = length & 0x7f if length > 0x7f else 0
        return at + 2 + size, int.from_bytes(der[at + 2:at + 2 + size], "big") if size else length

    at, _ = enter(0)
    at, _ = enter(at)
    version, length = enter(at)
    start, length = enter(version + length)
    return der[start:start + length]
