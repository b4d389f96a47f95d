"""The base of every scenario: the generator's processes, two sidecars with mTLS between them, and the claims."""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import select
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from rig import portcullis
from rig.certificates import CLIENT, SERVER, Authority
from rig.processes import Processes, RigError, _die_with_parent, free_port, until

PORT = portcullis.PORTS["STRICT"]
POLICY = """\
# {number}
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: soak, namespace: shop}}
spec: {{mtls: {{mode: {mode}}}}}
"""


def development_build(program):
    """A program of the workspace as `cargo test` builds it. `--examples` makes cargo select features for development
    dependencies too, as for tests; otherwise it would compile every dependency once more."""
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--workspace", "--examples", "--bin", program], check=True,
                   timeout=3600)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")).resolve() / "debug" / program


class Result:
    """The figures of one scenario; a claim is a figure with a required value."""

    def __init__(self, name):
        self.name = name
        self.rows = []
        self.skipped = None

    def figure(self, what, value):
        self.rows.append((what, value, None, True))

    def claim(self, what, value, wanted, met):
        self.rows.append((what, value, wanted, bool(met)))

    def zero(self, what, value):
        self.claim(what, value, "0", value == 0)

    def some(self, what, value):
        """A count that must not be zero, since the other claims would then prove nothing."""
        self.claim(what, value, "> 0", value > 0)

    @property
    def passed(self):
        return all(met for *_, met in self.rows)


class Context:
    """Options of the run."""

    def __init__(self, binary, generator, folder, short, sabotage=False):
        self.binary = os.path.abspath(binary)
        self.generator = os.path.abspath(generator)
        self.folder = pathlib.Path(folder)
        self.short = short
        self.sabotage = sabotage

    def either(self, short, long):
        return short if self.short else long


class Program:
    """One process of the generator: it answers each command with one line of JSON."""

    def __init__(self, context, *arguments):
        self.process = subprocess.Popen(
            [context.generator, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=_die_with_parent)
        self.name = " ".join(map(str, arguments))
        self.buffer = b""

    def _line(self, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                raise RigError(f"the generator does not answer in {seconds} s: {self.name}")
            read = os.read(self.process.stdout.fileno(), 65536)
            if not read:
                raise RigError(f"the generator ended: {self.name}")
            self.buffer += read
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def ask(self, command="stats", seconds=20):
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        return self._line(seconds)

    def listening(self):
        return int(self._line(10)["listen"].rsplit(":", 1)[1])

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Mesh:
    """An app, its sidecar `cart`, a client's sidecar `web`, and loads. All end with the `with` block."""

    # The identity of `cart`.
    server = SERVER

    def __init__(self, context, mode="STRICT", relay=None, cart=None, web=None, expected=SERVER):
        self.context = context
        self.relay = relay
        self.changes = {"cart": cart or {}, "web": web or {}}
        self.number = 0
        self.mode = mode
        self.expected = expected
        self.programs = []

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(dir=self.context.folder)
        self.folder = pathlib.Path(self.temporary.name)
        self.processes = Processes(self.folder)
        self.processes.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for program in self.programs:
            program.close()
        for process in self.processes.running:
            # A scenario's fault may have left a process that does not react to signals.
            if process.poll() is None:
                process.kill()
        self.processes.__exit__()
        self.temporary.cleanup()

    def _start(self):
        self.app = self.program("app", "127.0.0.1:0")
        target = self.app.listening()
        if self.relay:
            target = self.program("relay", "127.0.0.1:0", f"127.0.0.1:{target}", self.relay).listening()
        self.leaf = self._identities()
        self.cart = portcullis.server("cart", self.folder, self.context.binary, self.leaf["cart"], self.server)
        self.web = portcullis.client("web", self.folder, self.context.binary, self.leaf["web"])
        self.direct = self.cart.inbound("STRICT", target)
        self.entry = self.web.outbound(self.direct, self.expected)
        for name, sidecar in (("cart", self.cart), ("web", self.web)):
            changes = dict(self.changes[name])
            sidecar.wrapper = changes.pop("wrapper", ())
            sidecar.binary = changes.pop("binary", sidecar.binary)
            environment = changes.pop("env", None)
            ready = changes.pop("ready", True)
            sidecar.config.update(changes)
            self.number += 1
            sidecar.policy = POLICY.format(number=self.number, mode=self.mode)
            sidecar.start(self.processes, ready=ready, env=environment)

    def _identities(self):
        """A leaf for each; a mesh whose sidecars get theirs elsewhere has none."""
        self.authority = Authority.portcullis(self.folder / "ca", self.context.binary)
        return {name: self.authority.issue(self.folder / f"{name}-leaf", spiffe)
                for name, spiffe in (("cart", SERVER), ("web", CLIENT))}

    def program(self, *arguments):
        program = Program(self.context, *arguments)
        self.programs.append(program)
        return program

    def load(self, what, through="web", **options):
        """A load through the client's sidecar (tag m), or directly to the app's sidecar (tag p)."""
        port, tag = (self.entry, "m") if through == "web" else (self.direct, "p")
        words = [f"{name}={value}" for name, value in {"target": f"127.0.0.1:{port}", "tag": tag, **options}.items()]
        return self.program("load", what, *words)

    def tags(self, tag="m"):
        return self.app.ask()["tags"].get(tag, dict.fromkeys(
            ("opened", "open", "done", "bytes", "corrupt", "short", "resets", "other", "violations"), 0))

    def set_mode(self, mode, sidecar=None):
        """Writes a policy, and returns when it is in force."""
        self.number += 1
        sidecar = sidecar or self.cart
        sidecar.policy = POLICY.format(number=self.number, mode=mode)
        return self.in_force(sidecar, "policy", sidecar.write_policy)

    def write_leaf(self, name, leaf, trust=None):
        """Replaces one file after the other, the worst case: files do not match in between."""
        into = pathlib.Path(self.leaf[name].certificate).parent
        for source, target in ((leaf.certificate, "cert.pem"), (leaf.key, "key.pem"), (trust or leaf.trust, "ca.pem")):
            replace(into / target, pathlib.Path(source).read_bytes())

    def rotate(self, name):
        """A new certificate; returns when it is in force."""
        self.number += 1
        spiffe = SERVER if name == "cart" else CLIENT
        leaf = self.authority.issue(self.folder / f"{name}-leaf-{self.number}", spiffe)
        return self.in_force(getattr(self, name), "credentials", lambda: self.write_leaf(name, leaf))

    def in_force(self, sidecar, what, change, seconds=8):
        """Makes the change; returns how long it took until the sidecar had loaded a new generation."""
        before = metric(sidecar, f"portcullis_{what}_generation")
        change()
        began = time.monotonic()
        if not until(lambda: metric(sidecar, f"portcullis_{what}_generation") > before, seconds):
            said = [line[:600] for line in sidecar.log().splitlines() if " access: " not in line][-6:]
            raise RigError("\n".join([f"{sidecar.name}: no new {what} in {seconds} s", *said]))
        return time.monotonic() - began


def replace(path, content):
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(content)
    draft.chmod(0o600)
    draft.rename(path)


def get(port, path, seconds=5):
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metric(sidecar, name):
    """The sum over all series whose name and labels begin like this."""
    _, text = get(sidecar.admin, "/stats/prometheus")
    values = re.findall(rf"^{re.escape(name)}\S*(?: \S+)*? (\S+)$", text, re.MULTILINE)
    return sum(map(float, values))


class MemoryLimit:
    """A control group for one process. Needs root, and a memory controller that this host lets us use."""

    ROOT = pathlib.Path("/sys/fs/cgroup")

    def __init__(self, size):
        first = (self.ROOT / "memory" / "memory.limit_in_bytes").exists()
        self.folder = (self.ROOT / "memory" if first else self.ROOT) / f"portcullis-soak-{os.getpid()}"
        self.limit, self.usage, self.events = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control") if first
            else ("memory.max", "memory.current", "memory.events"))
        self.size = size

    def __enter__(self):
        """None, or why there is none."""
        try:
            self.folder.mkdir()
            (self.folder / self.limit).write_text(str(self.size))
        except OSError as error:
            self.__exit__()
            return f"no memory limit: {error}"
        return None

    def __exit__(self, *_):
        # Empty once the kernel has cleared up after its processes.
        until(self._removed, 5)

    def _removed(self):
        try:
            self.folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def wrapper(self):
        """Runs the command behind it in the group."""
        return ("sh", "-c", f'echo $$ >"{self.folder}/cgroup.procs" && exec "$@"', "sh")

    def used(self):
        return int((self.folder / self.usage).read_text())

    def kills(self):
        found = re.search(r"^oom_kill (\d+)$", (self.folder / self.events).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def small_buffers(default=65536, most=131072):
    """A network namespace whose sockets hold 128 KiB at most each way: what a kernel holds by default, several MiB for
    each socket, would have to fill before backpressure shows."""
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
        for name in ("tcp_rmem", "tcp_wmem"):
            pathlib.Path(f"/proc/sys/net/ipv4/{name}").write_text(f"4096 {default} {most}")
        yield
    finally:
        libc.setns(outside, CLONE_NEWNET)
        os.close(outside)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_share(pid, seconds):
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.monotonic() - began)


def rss(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1]) * 1024


def exit_code(process, seconds):
    """The exit code, or None, and how long it took."""
    began = time.monotonic()
    try:
        return process.wait(seconds), time.monotonic() - began
    except subprocess.TimeoutExpired:
        return None, seconds

