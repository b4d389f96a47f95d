"""`compose add --apply` on a stack that runs, what habit does to it afterwards, and `compose remove`."""

import os
import subprocess

from .docker import IMAGE, eventually, get

GROUP = "habit"
PORT = 8092
COMPOSE = f"""\
services:
  web:
    image: {IMAGE}
    command: [demo, app, --listen, "[::]:8080", --name, web, --calls, "http://cart:8080/"]
    user: "1000:1000"
    healthcheck: {{disable: true}}
    ports: ["{PORT}:8080"]
  cart:
    image: {IMAGE}
    command: [demo, app, --listen, "[::]:8080", --name, cart]
    user: "1000:1000"
    healthcheck: {{disable: true}}
"""
STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: default}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: PERMISSIVE}}}
"""
CLIENTS = (["docker-compose"], ["docker", "compose"])


def run(engine, report):
    for client in CLIENTS:
        if subprocess.run([*client, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            Habit(engine, report, client).run()
        else:
            print(f"skipped: `{' '.join(client)}` is not installed", flush=True)


class Habit:
    """A person's folder, and the commands that they type there."""

    def __init__(self, engine, report, client):
        self.engine, self.report, self.client = engine, report, client
        self.group = f"{GROUP}: {' '.join(client)}"
        self.folder = engine.folder / f"habit-{len(client)}"
        self.folder.mkdir()
        (self.folder / "compose.yaml").write_text(COMPOSE)

    def check(self, case, expected, problem):
        self.report.add(self.group, case, expected, problem)

    def attempt(self, *words):
        done = subprocess.run([*map(str, words)], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=180,
                              env={name: value for name, value in os.environ.items() if name != "COMPOSE_FILE"})
        return done.returncode, done.stdout

    def compose(self, *words):
        return self.attempt(*self.client, *words)

    def portcullis(self, *words):
        return self.attempt(self.engine.binary, "compose", *words)

    def works(self, case):
        good, *seen = eventually(lambda: ("hello from cart" in get(f"http://localhost:{PORT}/")[1], get(f"http://localhost:{PORT}/")), 20)
        self.check(case, "web and cart answer", None if good else str(seen))

    def status(self, case, code, *needles):
        found, text = self.portcullis("status")
        self.check(case, f"status {code}: {', '.join(needles)}",
                   None if found == code and all(needle in text for needle in needles) else f"{found}: {text}")

    def run(self):
        try:
            self.story()
        finally:
            self.compose("down", "--volumes", "--timeout", "1")

    def story(self):
        code, text = self.compose("up", "--detach")
        self.check("a stack without sidecars", "runs", None if code == 0 else text)
        self.works("before")
        if self.client == ["docker-compose"]:
            # What --write says is what a person runs, whichever Compose it is.
            code, text = self.portcullis("add", "web", "cart", "--image", IMAGE, "--write")
            self.check("add --write", "says what to run", None if code == 0 and "docker-compose stop web cart" in text else text)
            self.compose("stop", "--timeout", "1", "web", "cart")
            code, text = self.compose("up", "--detach")
            self.check("the two lines", "exit code 0", None if code == 0 else text)
        else:
            code, text = self.portcullis("add", "web", "cart", "--image", IMAGE, "--apply")
            self.check("add --apply on the running stack", "exit code 0, both captured",
                       None if code == 0 and text.count(" captured ") == 2 else text)
        self.status("afterwards", 0, "web       captured", "cart      captured")
        (self.folder / "policies" / "mesh.yaml").write_text(STRICT)
        self.works("STRICT")
        for words in (("up", "--detach"), ("down", "--timeout", "1"), ("up", "--detach")):
            code, text = self.compose(*words)
            self.check(f"plain {' '.join(words)}", "exit code 0", None if code == 0 else text)
        self.works("after plain commands")
        self.status("after plain commands", 0, "web       captured", "cart      captured")
        self.refuses("after plain commands")
        self.stopped()
        self.compose("--file", "compose.yaml", "up", "--detach", "--no-deps", "cart")
        self.status("cart is started from the original", 1, "cart      bypassed", "cart has no protection", "docker-compose stop cart")
        code, text = self.portcullis("add", "--apply")
        self.check("add --apply again", "exit code 0, both captured", None if code == 0 and text.count(" captured ") == 2 else text)
        self.works("mended")
        self.refuses("mended")
        changed = (self.folder / "compose.yaml").read_text().replace("--name, cart", "--name, cart, --calls, 'http://web:8080/slow'")
        (self.folder / "compose.yaml").write_text(changed)
        self.status("the original is changed", 1, "compose.yaml was changed")
        code, text = self.portcullis("add", "--apply")
        self.check("add --apply after the change", "exit code 0", None if code == 0 else text)
        (self.folder / "policies" / "mesh.yaml").unlink()
        code, text = self.portcullis("remove", "cart", "--apply")
        self.check("remove cart --apply", "exit code 0, web captured", None if code == 0 and text.count(" captured ") == 1 else text)
        self.works("cart has no sidecar")
        code, text = self.portcullis("remove", "--all", "--apply")
        left = [name for name in (".env", "compose.mesh.yaml") if (self.folder / name).exists()]
        self.check("remove --all --apply", "as before", None if code == 0 and not left else f"{code}: {left} {text}")
        self.works("without sidecars again")

    def stopped(self):
        """Not one sidecar runs: the engine knows what should."""
        self.compose("stop", "--timeout", "1")
        code, text = self.attempt(self.engine.binary, "check", "--docker", "--project", self.folder.name)
        found = all(f"{name} (project {self.folder.name}): has no running container" in text for name in ("web", "cart"))
        self.check("all of it is stopped: check --docker", "exit code 1, each service, and the command that starts it",
                   None if code == 1 and found and "up --detach" in text else f"{code}: {text}")
        code, text = self.compose("up", "--detach")
        self.check("up --detach", "exit code 0", None if code == 0 else text)
        self.works("started again")

    def refuses(self, case):
        """cart is STRICT for who has no sidecar."""
        network = f"{self.folder.name}_default"
        code, text = self.engine.attempt("run", "--rm", "--network", network, IMAGE, "demo", "get", "http://cart:8080/")
        self.check(f"{case}: a stranger asks cart", "is refused", None if code != 0 and "hello from cart" not in text else f"{code}: {text}")
