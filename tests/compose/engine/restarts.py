"""Restarts in random order, on an engine of its own: nothing gets past a sidecar, and what does not come back has a name.

The engine has a network namespace of its own, so that neither its bridges nor its rules meet those of another engine, and it can be
restarted. Each event is followed by one question: does everything work? What does not work by itself within `PATIENCE` must be named by
`portcullis check`, with a command; that command must mend it.
"""

import contextlib
import ctypes
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import threading
import time

from rig.processes import RigError, run as tool, until

from .docker import IMAGE, ROOT

GROUP = "restarts in random order"
PROJECT = "restarts"
PORT = 8093
# From an event to an answer, by itself or as a name in `check`.
PATIENCE = 60
# From here on `check` is asked, too. What it names twice in a row, so much apart, is not on its way any more.
QUIET = 3
STABLE = 1.5
SETTLED = 1
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

COMPOSE = f"""\
version: "3.9"
services:
  web:
    image: {IMAGE}
    command: [demo, app, --listen, "[::]:8080", --name, web, --calls, "http://cart:8080/"]
    user: "1000:1000"
    healthcheck: {{disable: true}}
    restart: unless-stopped
  cart:
    image: {IMAGE}
    command: [demo, app, --listen, "[::]:8080", --name, cart]
    user: "1000:1000"
    healthcheck: {{disable: true}}
    restart: unless-stopped
    ports: ["{PORT}:8080"]
"""
STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
PARTS = ("web", "web-proxy", "web-net", "cart", "cart-proxy", "cart-net", "ca")
# What the sidecars follow and apps cannot: these need no command.
BY_ITSELF = ("web", "web-proxy", "cart", "cart-proxy", "ca")


class OwnEngine:
    """dockerd in a network namespace of its own, with a folder of its own."""

    def __init__(self, folder, processes):
        self.folder = folder / "engine"
        self.folder.mkdir()
        self.processes = processes
        self.name = f"portcullis-restarts-{os.getpid()}"
        self.socket = self.folder / "docker.sock"
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0", "COMPOSE_HTTP_TIMEOUT": "120"}
        self.process = None

    def __enter__(self):
        # The flags below contradict a configuration that the host's own engine may have.
        (self.folder / "daemon.json").write_text("{}")
        tool(["ip", "netns", "add", self.name])
        tool(["ip", "-n", self.name, "link", "set", "lo", "up"])
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(subprocess.TimeoutExpired, RigError):
            self.stop()
        subprocess.run(["ip", "netns", "del", self.name], timeout=30)

    def start(self):
        # Not `ip netns exec`, which hides the control groups.
        self.process = self.processes.start(f"engine-{self.name}", [
            "nsenter", f"--net=/run/netns/{self.name}", "dockerd", "--config-file", str(self.folder / "daemon.json"),
            "--host", f"unix://{self.socket}", "--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "pid"),
            "--live-restore=false", "--shutdown-timeout=15"], env={name: value for name, value in os.environ.items() if name != "DOCKER_HOST"})
        if not until(lambda: self.attempt("docker", "version")[0] == 0, 60):
            raise RigError(f"the engine does not answer: see {self.process.log}")

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.processes.running.remove(self.process)

    def restart(self):
        self.stop()
        self.start()

    def attempt(self, *words, seconds=120, cwd=None):
        done = subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=seconds, text=True, env=self.env, cwd=cwd)
        return done.returncode, done.stdout

    def do(self, *words, **more):
        code, text = self.attempt(*words, **more)
        if code != 0:
            raise RigError(f"{shlex.join(map(str, words))}: {code}: {text}")
        return text


class Outside(threading.Thread):
    """Asks cart in plaintext from outside the mesh, all the time: by the published port, and at the holder's address."""

    def __init__(self, engine):
        super().__init__(daemon=True)
        self.engine = engine
        self.over = threading.Event()
        self.asked = self.connected = self.refused = 0
        self.admitted = []
        self.addresses = set()

    def run(self):
        with open(f"/run/netns/{self.engine.name}") as namespace:
            # This thread alone.
            if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        while not self.over.is_set():
            for address in [("127.0.0.1", PORT), *((host, 8080) for host in list(self.addresses))]:
                self._ask(address)
            time.sleep(0.005)

    def _ask(self, address):
        self.asked += 1
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1) as connection:
            self.connected += 1
            connection.sendall(b"GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
            self.refused += b"Mutual TLS is required" in answer
            if b"hello from" in answer:
                self.admitted.append(time.strftime("%H:%M:%S"))

    def stop(self):
        self.over.set()
        self.join(10)


class Restarts:
    """One stack, and what happens to it."""

    def __init__(self, engine, binary, folder, report, seed):
        self.engine, self.binary, self.report = engine, binary, report
        self.folder = folder / "restarts"
        self.folder.mkdir()
        self.random = random.Random(seed)
        self.took = {}

    def check(self, case, expected, problem):
        self.report.add(GROUP, case, expected, problem)

    def compose(self, *words):
        return self.engine.attempt("docker-compose", "--project-name", PROJECT, "--file", self.folder / "compose.mesh.yaml", *words)

    def id(self, service):
        found = self.engine.do("docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}",
                               "--filter", f"label=com.docker.compose.service={service}").split()
        if len(found) != 1:
            raise RigError(f"{len(found)} containers of {service}")
        return found[0]

    def start(self):
        (self.folder / "compose.yaml").write_text(COMPOSE)
        tool([str(ROOT / "docker" / "build"), str(self.binary), IMAGE], env=self.engine.env)
        self.engine.do(self.binary, "compose", "add", "web", "cart", "-f", self.folder / "compose.yaml", "--image", IMAGE, "--write")
        (self.folder / "policies" / "mesh.yaml").write_text(STRICT)
        code, text = self.compose("up", "--detach")
        self.check("up", "exit code 0", None if code == 0 else text)
        self.check("up", "web asks cart over mTLS, and is answered", None if until(self.works, 60) else self.why())

    def works(self):
        """The way in, the way out, and the outsider's refusal."""
        with contextlib.suppress(RigError, subprocess.TimeoutExpired):
            code, text = self.engine.attempt("docker", "exec", self.id("web"), "/portcullis", "demo", "get", "--timeout", "3s",
                                             "http://cart:8080/", seconds=20)
            return code == 0 and "hello from cart" in text
        return False

    def named(self):
        """What `check` says does not run behind its sidecar: service to command."""
        _, text = self.engine.attempt(self.binary, "check", f"--docker={self.engine.socket}", "-o", "json", seconds=60)
        with contextlib.suppress(ValueError, StopIteration):
            checks = json.loads(text[text.index("{"):])["items"]
            captured = next(item for item in checks if item["name"] == "containers-captured")
            wrong = [finding for finding in captured["findings"] if finding["state"] in ("failed", "warning")]
            return {finding["message"].split(" ")[0]: finding.get("remedy") for finding in wrong}
        return {}

    def why(self):
        return self.compose("ps")[1] + self.engine.attempt(self.binary, "check", f"--docker={self.engine.socket}", seconds=60)[1]

    def events(self, times):
        """Each one `times` times, in random order."""
        kinds = [("restart of everything", self.restart_all, None), ("restart of the engine", self.engine.restart, None)]
        for part in PARTS:
            kinds.append((f"restart {part}", lambda part=part: self.engine.attempt("docker", "restart", self.id(part)), part))
            kinds.append((f"kill -9 {part}", lambda part=part: self.kill(part), part))
        events = kinds * times
        self.random.shuffle(events)
        return events

    def restart_all(self):
        self.compose("restart")

    def kill(self, part):
        """As a crash: `docker kill` counts as a wish."""
        pid = int(self.engine.do("docker", "inspect", "--format", "{{.State.Pid}}", self.id(part)))
        if pid > 0:
            os.kill(pid, signal.SIGKILL)

    def after(self, event, part):
        """How it came back: by itself, or by the command that `check` named. `None` if neither."""
        begun = time.monotonic()
        # What a kill leads to takes a moment: a stack that has not noticed yet works, too.
        time.sleep(SETTLED)
        needs_none = part in BY_ITSELF
        if until(self.works, PATIENCE if needs_none else QUIET):
            return "by itself", time.monotonic() - begun
        if needs_none:
            return None, self.why()
        # Sidecars may still be on their way.
        named, before = self.named(), None
        while not named or named != before:
            if self.works():
                return "by itself", time.monotonic() - begun
            if time.monotonic() > begun + PATIENCE:
                return None, f"nothing works, and check names nothing: {self.why()}"
            time.sleep(STABLE)
            named, before = self.named(), named
        took = time.monotonic() - begun
        for _ in range(3):
            for remedy in dict.fromkeys(named.values()):
                for command in re.split(r" && ", remedy or ""):
                    self.engine.attempt(*shlex.split(command))
            if until(self.works, 30):
                return f"check named {', '.join(sorted(named))}", took
            named = self.named()
        return None, f"its command does not mend it: {named}: {self.why()}"

    def run(self, times, only):
        outside = Outside(self.engine)
        outside.start()
        try:
            events = self.events(times)[:only]
            for number, (event, act, part) in enumerate(events, 1):
                if time.monotonic() > self.end:
                    print(f"the time is over after {number - 1} of {len(events)} events", flush=True)
                    break
                act()
                how, took = self.after(event, part)
                if how is None:
                    self.check(f"{number}: {event}", "works, or check names what does not and the command mends it", took)
                    break
                self.took.setdefault((event, how), []).append(took)
                if times > 1:
                    print(f"  {number:3} of {len(events)}  {event:24} {how}, {took:.0f} s", flush=True)
                with contextlib.suppress(RigError):
                    address = self.engine.do("docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
                                             self.id("cart-net")).strip()
                    outside.addresses = {address} if address else set()
        finally:
            outside.stop()
        for (event, how), took in sorted(self.took.items()):
            self.check(f"{event}, {len(took)} times: {how}", f"within {PATIENCE} s; {max(took):.0f} s at most",
                       None if max(took) <= PATIENCE else str(took))
        self.check(f"plaintext from outside, asked {outside.asked} times, {outside.connected} connections, {outside.refused} refusals in words",
                   "never one byte of cart", None if not outside.admitted and outside.connected else str(outside.admitted))
        for proxy in ("web-proxy", "cart-proxy"):
            lines = self.engine.do("docker", "logs", self.id(proxy)).replace('"', "").splitlines()
            bad = [line for line in lines if " access: " in line and "decision=allow" in line and "transport=plaintext" in line]
            self.check(f"all that {proxy} has ever let through", "mTLS", "\n".join(bad[:3]) or None)


def run(engine, report, times=1, only=None, seconds=60, seed=None):
    seed = seed if seed is not None else random.randrange(1 << 32)
    print(f"\n{GROUP}: seed {seed}", flush=True)
    with OwnEngine(engine.folder, engine.processes) as own:
        restarts = Restarts(own, engine.binary, engine.folder, report, seed)
        try:
            restarts.start()
            restarts.end = time.monotonic() + seconds
            restarts.run(times, only)
        finally:
            restarts.compose("down", "--volumes", "--timeout", "1")
