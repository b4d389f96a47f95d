"""The document's migration, step by step, on containers: from nothing to STRICT, with one client that everybody forgot."""

import json
import subprocess
import time

from engine.docker import IMAGE, eventually, get
from rig.browser import Browser
from rig.processes import RigError, free_port, until

from .stack import BILLING, PROJECT, SHOP, WEB, Customers, compose

# Exit codes of the commands.
NOT_READY, DRIFT, TAKEN_BACK = 80, 83, 84
PERMISSIVE = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: PERMISSIVE}}
"""
STRICT_BILLING = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: billing}
spec: {mtls: {mode: STRICT}}
"""
# People call `web` from outside of the mesh, in plaintext.
PUBLISHED = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: web-published
  namespace: shop
  annotations:
    portcullis/owner: shop-team
    portcullis/reason: people call the published port, in plaintext
    portcullis/expires: "2099-01-01"
spec:
  selector: {matchLabels: {app: web}}
  portLevelMtls:
    8080: {mode: PERMISSIVE}
"""


class Story:
    def __init__(self, engine, report, pictures, every, window):
        self.engine, self.report, self.pictures = engine, report, pictures
        self.every, self.window = every, window
        self.folder = engine.folder / "stack"
        self.policies = self.folder / "policies"
        self.policies.mkdir(parents=True)
        self.group = ""

    def check(self, case, expected, problem):
        self.report.add(self.group, case, expected, problem)

    def portcullis(self, *arguments, given="", seconds=120):
        """Runs the command on the host, as an operator does: exit code, standard output, standard error."""
        done = subprocess.run([str(self.engine.binary), *map(str, arguments)], input=given, capture_output=True, text=True,
                              timeout=seconds, cwd=self.folder)
        return done.returncode, done.stdout, done.stderr

    def asked(self, *arguments, **options):
        """The same with what finds the sidecars: the engine."""
        return self.portcullis(*arguments, "--docker", "--project", PROJECT, **options)

    def readiness(self, *arguments):
        return self.asked("readiness", "--window", f"{self.window}s", "--min-observation", "0s", *arguments)

    def add(self, *services, namespace, source, target):
        """Gives services a sidecar."""
        code, text, said = self.portcullis("compose", "add", *services, "-n", namespace, "-f", source, "--image", IMAGE)
        if code:
            raise RigError(f"compose add {services}: {code}: {said}")
        (self.folder / target).write_text(text)

    def picture(self, name):
        """What the page shows at this step."""
        if self.pictures:
            # The page asks every two seconds.
            time.sleep(5)
            (self.pictures / f"migrate-{name}.png").write_bytes(self.browser.screenshot())

    def answer(self):
        """The first sentence of the page."""
        return self.browser.run("return document.querySelector('h1').innerText")

    def run(self):
        self.nothing()
        self.permissive()
        self.open_page()
        customers = Customers()
        try:
            self.watch()
            self.too_early()
            self.undisturbed(customers, "until the job gets a sidecar", 0)
            self.mend()
            mended = time.monotonic()
            self.strict()
            self.audit()
            self.undisturbed(customers, "from then on", mended)
        finally:
            customers.end()
            self.browser.quit()

    def nothing(self):
        self.group = "Before: no mesh"
        (self.folder / "compose.yaml").write_text(compose(self.every))
        self.engine.up(PROJECT, self.folder / "compose.yaml")
        good, status, body = eventually(lambda: (get(WEB)[1].count("hello") == 5, *get(WEB)), 20)
        self.check("one request", "goes through five services", None if good else f"{status}: {body}")
        self.engine.compose(PROJECT, "down", "--timeout", "2")

    def permissive(self):
        self.group = "Step 1: sidecars for five services, PERMISSIVE"
        self.add(*SHOP, namespace="shop", source="compose.yaml", target="compose.shop.yaml")
        self.add(*BILLING, namespace="billing", source="compose.shop.yaml", target="compose.mesh.yaml")
        code, _, said = self.portcullis("apply", "-f", "-", "--policies", "policies", given=PERMISSIVE + "---\n" + PUBLISHED)
        self.check("portcullis apply", "exit code 0", None if code == 0 else f"{code}: {said}")
        self.engine.up(PROJECT, self.folder / "compose.mesh.yaml")
        good, status, body = eventually(lambda: (get(WEB)[1].count("hello") == 5, *get(WEB)), 40)
        self.check("one request", "goes through five services", None if good else f"{status}: {body}")
        code, text, said = self.asked("proxy-status", "-o", "json")
        names = sorted(item["name"] for item in json.loads(text)["items"]) if code == 0 else said
        self.check("portcullis proxy-status --docker", "all five answer", None if names == sorted((*SHOP, *BILLING)) else str(names))

    def open_page(self):
        port = free_port()
        command = [str(self.engine.binary), "dashboard", "--docker", "--project", PROJECT, "--no-browser", "--port", str(port)]
        process = self.engine.processes.start("dashboard", command)
        url = f"http://127.0.0.1:{port}/"
        self.engine.processes.wait_until_ready(process, url)
        self.browser = Browser(self.engine.processes)
        self.browser.screen(1280, 800)
        self.browser.open(url)

    def watch(self):
        self.group = "Step 2: look at what is left"
        # A call that found no app yet is a refusal, and is named as well.
        def named():
            code, text, _ = self.readiness()
            return code == NOT_READY and "cron-report" in text

        forgotten = until(named, 2 * self.every + 20)
        code, text, said = self.readiness()
        self.check("portcullis readiness", "names cron-report, and that pay is not ready",
                   None if forgotten and code == NOT_READY else f"{code}: {text}{said}")
        shown = until(lambda: "cron-report" in self.browser.run("return document.querySelector('.verdict').innerText"), 20)
        self.check("the page", "names cron-report in its first lines", None if shown else self.answer())
        code, text, said = self.asked("migrate", "plan", "--policies", "policies", "--window", f"{self.window}s", "--min-observation", "0s")
        plan = text + said
        self.check("portcullis migrate plan", "billing waits for cron-report", None if "billing" in plan and "cron-report" in plan else f"{code}: {plan}")
        self.picture("permissive")

    def too_early(self):
        self.group = "STRICT too early, with a guard"
        before = self.files()
        code, text, said = self.asked("apply", "-f", "-", "--policies", "policies", "--guard", "3m", "--max-denied", "0",
                                      given=STRICT_BILLING, seconds=240)
        self.check("apply --guard", f"exit code {TAKEN_BACK}, and names cron-report",
                   None if code == TAKEN_BACK and "cron-report" in text + said else f"{code}: {text}{said}")
        self.check("the policy folder", "is as before", None if self.files() == before else str(self.files()))
        self.picture("taken-back")

    def files(self):
        return {path.name: path.read_text() for path in sorted(self.policies.rglob("*.yaml"))}

    def mend(self):
        self.group = "The forgotten client gets a sidecar"
        self.add("cron-report", namespace="billing", source="compose.mesh.yaml", target="compose.mended.yaml")
        self.engine.up(PROJECT, self.folder / "compose.mended.yaml")
        ready = until(lambda: self.readiness("-n", "billing")[0] == 0, self.window + 4 * self.every + 60)
        code, text, said = self.readiness("-n", "billing")
        self.check("portcullis readiness -n billing", "ready, once the window has passed", None if ready else f"{code}: {text}{said}")
        self.picture("ready")

    def strict(self):
        """`migrate next` as often as it has something to say."""
        arguments = ("--window", f"{self.window}s", "--min-observation", "0s")
        for step in ("Step 3 and 4: STRICT for one namespace", "Step 3 and 4: STRICT for the other", "Step 5: STRICT for the mesh"):
            self.group = step
            code, yaml, said = self.asked("migrate", "next", "--policies", "policies", *arguments)
            self.check("portcullis migrate next", "a policy with STRICT", None if code == 0 and "STRICT" in yaml else f"{code}: {yaml}{said}")
            code, text, said = self.asked("apply", "-f", "-", "--policies", "policies", "--guard", f"{3 * self.every}s", "--max-denied", "0",
                                          given=yaml, seconds=240)
            self.check("apply --guard", "exit code 0: nobody was denied", None if code == 0 else f"{code}: {text}{said}")
        code, text, said = self.asked("check")
        self.check("portcullis check --docker", "nothing is wrong", None if code == 0 else f"{code}: {text}{said}")
        code, text, said = self.asked("migrate", "status", "--policies", "policies", *arguments)
        self.check("portcullis migrate status", "exit code 0, done", None if code == 0 else f"{code}: {text}{said}")
        self.picture("strict")

    def audit(self):
        self.group = "After: exceptions are written down, and drift is seen"
        code, text, said = self.portcullis("audit", "-f", "policies", "--save", "baseline.yaml")
        self.check("portcullis audit --save", "one exception, with owner, reason and end", None if code == 0 and "shop-team" in text + said else f"{code}: {text}{said}")
        code, text, said = self.portcullis("audit", "-f", "policies", "--baseline", "baseline.yaml")
        self.check("audit --baseline", "exit code 0", None if code == 0 else f"{code}: {text}{said}")
        self.portcullis("apply", "-f", "-", "--policies", "policies", given=STRICT_BILLING.replace("STRICT", "PERMISSIVE"))
        code, text, said = self.portcullis("audit", "-f", "policies", "--baseline", "baseline.yaml")
        self.check("somebody opens billing again", f"exit code {DRIFT}", None if code == DRIFT and "billing" in text + said else f"{code}: {text}{said}")

    def undisturbed(self, customers, span, since):
        """`compose add` recreates containers; nothing else costs anybody an answer."""
        self.group = f"People who call web, {span}"
        served, failed = customers.served_since(since)
        self.check(f"{served} times", "are answered by all five", None if served and not failed else str(failed[:3]))
