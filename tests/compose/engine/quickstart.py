"""`docker/compose.yaml`, as a newcomer runs it, and then everything that happens to it in its life."""

import concurrent.futures
import pathlib
import shutil
import threading
import time

from . import view
from .docker import IMAGE, ROOT, eventually, get

PROJECT = "portcullis-test-quickstart"
WEB, BATCH, CART = "http://localhost:8088", "http://localhost:8087", "http://localhost:8089"
WEB_ID, BATCH_ID, CART_ID = (f"spiffe://cluster.local/ns/shop/sa/{name}" for name in ("web", "batch", "cart"))
STRICT_HINT = "Mutual TLS is required"


class QuickStart:
    def __init__(self, engine, report):
        self.engine, self.report = engine, report
        self.files = engine.folder / "docker"
        shutil.copytree(ROOT / "docker", self.files)
        self.policy = self.files / "policies" / "istio-system" / "mesh.yaml"

    def check(self, group, case, expected, problem):
        self.report.add(f"Quick start: {group}", case, expected, problem)

    def id(self, service):
        return self.engine.container(PROJECT, service)

    def start(self):
        begun = time.monotonic()
        self.engine.up(PROJECT, self.files / "compose.yaml")
        self.check("start", f"docker-compose up --detach, {time.monotonic() - begun:.0f} s", "exit code 0", None)
        self.works("start", "the first request")
        said = self.issued()
        for service, identity in (("web", WEB_ID), ("batch", BATCH_ID), ("cart", CART_ID)):
            self.check("start", f"certificate of {service}", "issued for its own ID", None if identity in said else said)

    def issued(self):
        """What the authority says it has issued."""
        return self.engine.docker("exec", self.id("ca"), "/portcullis", "ca", "log", "--dir", "/var/lib/portcullis/ca")

    def authority(self):
        """Certificates are its business alone, and while it is away they last."""
        group = "the authority"
        mounts = {mount["Name"].rsplit("_", 1)[-1] for mount in self.engine.inspect(self.id("web-proxy"))["Mounts"]
                  if mount["Type"] == "volume"}
        own = {"web-identity", "web-admin", "web-ledger"}
        self.check(group, "volumes of web's sidecar", "its own identity, socket and ledger", None if mounts == own else str(mounts))
        before = self.issued().count(CART_ID)
        self.engine.docker("restart", self.id("cart-proxy"))
        ready = self.engine.ready(self.id("cart-proxy"))
        self.check(group, "cart's sidecar starts again", "with a new token, a new certificate",
                   None if ready and self.issued().count(CART_ID) == before + 1 else self.issued())
        self.engine.docker("kill", self.id("ca"))
        self.works(group, "it is dead, the mesh works")
        self.engine.docker("restart", self.id("cart-proxy"))
        status, body = get(CART)
        self.check(group, "dead, and a sidecar starts again", "nothing is let through", None if status != 200 else body)
        self.engine.docker("start", self.id("ca"))
        ready = self.engine.ready(self.id("cart-proxy"), 60)
        self.check(group, "and it is back", "the sidecar gets its certificate", None if ready else str(self.engine.state(
            self.id("cart-proxy"))))
        self.works(group, "it is back", 20)

    def works(self, group, case, seconds=10):
        """web answers the host, and what cart answered it came over mTLS."""
        cart, web = self.id("cart-proxy"), self.id("web-proxy")
        before = [len(self.engine.access(container)) for container in (web, cart)]

        def called():
            status, body = get(WEB)
            return status == 200 and "cart" in body, status, body
        good, status, body = eventually(called, seconds)
        self.check(group, case, "web answers with what cart said", None if good else f"{status}: {body}")

        def logged():
            new = [self.engine.access(container)[known:] for container, known in zip((web, cart), before)]
            out = [line for line in new[0] if "transport=mtls" in line and CART_ID in line]
            into = [line for line in new[1] if "transport=mtls" in line and WEB_ID in line and "decision=allow" in line]
            return bool(out and into), new
        good, new = eventually(logged, 5)
        self.check(group, f"{case}, as the sidecars saw it", "mTLS, both identities", None if good else str(new)[-600:])

    def refuses(self, group):
        """Plaintext from outside the mesh gets the hint that mTLS is required, and nothing else."""
        def hinted(status, body):
            return status == 403 and STRICT_HINT in body and "istio-system" not in body and "cart" not in body
        before = len(self.engine.access(self.id("cart-proxy")))
        status, body = get(CART)
        self.check(group, "curl localhost:8089, a published port", "refused with a hint",
                   None if hinted(status, body) else f"{status}: {body}")
        code, text = self.engine.outsider(PROJECT, "demo", "get", "http://cart:8080/")
        self.check(group, "another container in the same network", "refused with a hint",
                   None if code == 1 and STRICT_HINT in text else f"{code}: {text}")
        good, lines = eventually(lambda: (len(self.engine.access(self.id("cart-proxy"))) >= before + 2,
                                          self.engine.access(self.id("cart-proxy"))[before:]), 5)
        good = good and all("reason=plaintext_in_strict" in line for line in lines)
        self.check(group, "both, in the log of cart's sidecar", "plaintext_in_strict", None if good else str(lines))

    def least_privilege(self):
        for service, user in (("web-proxy", "1337"), ("cart-proxy", "1337"), ("web", "1000"), ("web-net", "1337"), ("cart-net", "1337")):
            facts = self.engine.inspect(self.id(service))
            status = pathlib.Path(f"/proc/{facts['State']['Pid']}/status").read_text()
            seen = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines()}
            capabilities = {seen[name][0].strip("0") for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")}
            problem = []
            if seen["Uid"][0] != user:
                problem.append(f"user {seen['Uid'][0]}")
            if service != "web":
                problem += [f"{name}={seen[name]}" for name in ("CapBnd",) if seen[name][0].strip("0")]
                problem += [] if seen["NoNewPrivs"] == ["1"] else ["may gain privileges"]
                problem += [] if seen["Seccomp"] == ["2"] else ["no system call is blocked"]
                problem += [] if facts["HostConfig"]["ReadonlyRootfs"] else ["may write to its root"]
            if capabilities != {""}:
                problem.append(f"capabilities {capabilities}")
            self.check("least privilege", service, f"user {user}, no capability", "; ".join(problem) or None)
            if service.endswith("-net"):
                # Those that it was started with are gone, and it was started with something.
                had = sorted(facts["HostConfig"]["CapAdd"])
                said = self.engine.attempt("logs", self.id(service))[1]
                self.check("least privilege", f"{service}, started with {', '.join(had)}", "says what it gave up, and made the rules first",
                           None if "NET_ADMIN" in str(had) and "privileges given up" in said and
                           said.index("installed: table inet portcullis") < said.index("privileges given up") else said)

    def health(self):
        """Rare checks by the engine, since each is a process; the apps have waited for other containers."""
        for service in ("web-ready", "cart-ready"):
            state = self.engine.state(self.id(service))
            self.check("health", f"{service}, for which the app has waited", "has exited, with 0",
                       None if (state["Status"], state["ExitCode"]) == ("exited", 0) else str(state))
        for service in ("web-proxy", "cart-proxy", "ca"):
            interval = self.engine.inspect(self.id(service))["Config"]["Healthcheck"]["Interval"] / 1e9
            healthy = self.engine.healthy(self.id(service), 35)
            self.check("health", f"{service}, checked every {interval:.0f} s", "healthy",
                       None if healthy and interval >= 30 else str(self.engine.state(self.id(service))))

    def beside_a_sidecar(self):
        """What runs in the network namespace of web: a proof of the rules, and a job that waits for the sidecar."""
        def beside(*arguments):
            return self.engine.attempt("run", "--rm", "--network", f"container:{self.id('web-net')}", *arguments)
        code, text = beside("--user", "0:0", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", IMAGE, "intercept", "verify")
        self.check("beside a sidecar", "intercept verify", "as planned, and a probe is taken",
                   None if code == 0 and "as planned" in text and "the sidecar took" in text else f"{code}: {text}")
        code, text = self.engine.attempt("exec", self.id("web-net"), "/portcullis", "intercept", "verify", "-c", "/etc/portcullis/config.yaml")
        self.check("beside a sidecar", "docker exec in the holder: intercept verify", "as planned",
                   None if code == 0 and "as planned" in text else f"{code}: {text}")
        code, text = beside("--user", "1000:1000", IMAGE, "run", "--", "/portcullis", "demo", "get", "http://cart:8080/")
        self.check("beside a sidecar", "run -- a job, as PID 1", "reaches cart, ends with 0",
                   None if code == 0 and "hello from cart" in text else f"{code}: {text}")
        code, text = beside("--user", "1000:1000", IMAGE, "run", "--", "/portcullis", "demo", "get", "http://cart:8080/nothing")
        self.check("beside a sidecar", "run -- a job that fails", "ends with its exit code", None if code == 1 else f"{code}: {text}")

    def live_policy(self):
        strict = self.policy.read_text()

        def outsider():
            code, text = self.engine.outsider(PROJECT, "demo", "get", "http://cart:8080/")
            return code == 0, code, text
        self.policy.write_text(strict.replace("mode: STRICT", "mode: PERMISSIVE"))
        good, *seen = eventually(outsider, 10)
        self.check("a policy is edited", "STRICT to PERMISSIVE", "the outsider is let in", None if good else str(seen))
        self.works("a policy is edited", "the mesh meanwhile")
        self.policy.write_text(strict)
        good, *seen = eventually(lambda: (not outsider()[0],), 10)
        self.check("a policy is edited", "and back", "the outsider is refused", None if good else str(seen))

    def one_caller_is_denied(self):
        """An AuthorizationPolicy, as the guide has it, while everything runs."""
        group, policy = "one caller is denied", self.policy.parent.parent / "shop" / "deny-batch.yaml"

        def calls(url):
            status, body = get(url)
            return "hello from cart" in body, status, body
        good, *seen = eventually(lambda: calls(BATCH), 10)
        self.check(group, "batch calls cart, as web does", "hello from cart", None if good else str(seen))
        guide = (ROOT / "docs" / "guides" / "compose.md").read_text()
        policy.write_text(guide.split("deny-batch.yaml <<'END'\n")[1].split("END\n")[0])
        good, *seen = eventually(lambda: (not calls(BATCH)[0], *calls(BATCH)[1:]), 10)
        self.check(group, "an AuthorizationPolicy denies it", "cart's sidecar refuses", None if good else str(seen))
        self.works(group, "web meanwhile")
        lines = self.engine.access(self.id("cart-proxy"))
        good = any("reason=authorization_denied" in line and "policy=shop/deny-batch" in line and "sa/batch" in line for line in lines)
        self.check(group, "in the log of cart's sidecar", "the policy and the identity", None if good else str(lines[-3:]))
        policy.unlink()
        good, *seen = eventually(lambda: calls(BATCH), 10)
        self.check(group, "the file is deleted", "hello from cart", None if good else str(seen))

    def legacy_service(self):
        """cart is set to DISABLE and back while it is called, as the guide has it: its callers follow, and lose nothing."""
        group, policy = "a legacy service", self.policy.parent.parent / "shop" / "legacy.yaml"
        guide = (ROOT / "docs" / "guides" / "compose.md").read_text()
        stop, failed, asked = threading.Event(), [], [0]

        def caller():
            while not stop.is_set():
                status, body = get(WEB)
                asked[0] += 1
                if status != 200 or "hello from cart" not in body:
                    failed.append(f"{status}: {body}")

        def transports():
            return [line for line in self.engine.access(self.id("web-proxy")) if "direction=outbound" in line]
        known = len(transports())
        callers = [threading.Thread(target=caller) for _ in range(2)]
        for thread in callers:
            thread.start()
        for _ in range(3):
            policy.write_text(guide.split("legacy.yaml <<'END'\n")[1].split("END\n")[0])
            time.sleep(1.5)
            policy.unlink()
            # A file that is gone counts after a second.
            time.sleep(2.5)
        stop.set()
        for thread in callers:
            thread.join()
        self.check(group, f"DISABLE and back, three times, {asked[0]} requests", "not one is lost",
                   None if not failed and asked[0] > 100 else f"{len(failed)} failed: {failed[:3]}")
        lines = transports()[known:]
        plain = sum("transport=plaintext" in line and "mode=plaintext" in line for line in lines)
        secured = sum("transport=mtls" in line for line in lines)
        self.check(group, "as web's sidecar saw it", "plaintext and mTLS", None if plain > 10 and secured > 10 else str(lines[-3:]))
        self.check(group, "and as its log tells it", "a downgrade",
                   None if "mode_disable" in self.engine.docker("logs", self.id("web-proxy")) else "no warning")
        self.works(group, "afterwards")

    def restarts(self):
        for service in ("cart", "web", "cart-proxy", "web-proxy"):
            self.engine.docker("restart", self.id(service))
            if service.endswith("proxy") and not self.engine.ready(self.id(service)):
                self.check("restarts", service, "healthy again", str(self.engine.state(self.id(service))))
            self.works("restarts", f"after {service}", 20)

    def dead_sidecar(self):
        """Without a sidecar nothing gets in or out."""
        for service in ("cart-proxy", "web-proxy"):
            self.engine.docker("kill", self.id(service))
        status, body = get(CART)
        self.check("the sidecars are dead", "from the host to cart", "no answer", None if not body else f"{status}: {body}")
        code, text = self.engine.outsider(PROJECT, "demo", "get", "http://cart:8080/")
        self.check("the sidecars are dead", "from the network to cart", "no connection", None if code == 69 else f"{code}: {text}")
        code, text = self.engine.attempt("exec", self.id("web"), "/portcullis", "demo", "get", "http://cart:8080/")
        self.check("the sidecars are dead", "from web to cart, captured", "no connection", None if code == 69 else f"{code}: {text}")
        self.engine.docker("start", self.id("cart-proxy"))
        code, text = self.engine.attempt("exec", self.id("web"), "/portcullis", "demo", "get", "http://cart:8080/")
        self.check("the sidecars are dead", "from web, when cart's is back", "no connection, and no plaintext",
                   None if code == 69 else f"{code}: {text}")
        self.engine.docker("start", self.id("web-proxy"))
        for service in ("cart-proxy", "web-proxy"):
            self.engine.ready(self.id(service))
        self.works("the sidecars are dead", "and alive again")

    def seen(self):
        def check(case, expected, problem):
            self.check("the operator's view", case, expected, problem)
        view.run(self.engine, check, PROJECT, ("web", "batch", "cart"))
        view.page(check, "http://127.0.0.1:20001/", ("web", "batch", "cart"))

    def in_flight(self):
        """What is under way when something is stopped arrives."""
        def during(case, url, act):
            with concurrent.futures.ThreadPoolExecutor() as pool:
                request = pool.submit(get, url, 30)
                time.sleep(1)
                act()
                status, body = request.result()
            self.check("in flight", case, "the answer arrives", None if status == 200 else f"{status}: {body}")
        slow = f"{WEB}/slow?seconds=4"
        during("web's sidecar is restarted", slow, lambda: self.engine.docker("restart", "--time", "30", self.id("web-proxy")))
        self.engine.ready(self.id("web-proxy"))
        # The request must have passed both sidecars: web's own clients do not reach cart's slow page, so ask from its side.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            request = pool.submit(self.engine.attempt, "exec", self.id("web"), "/portcullis", "demo", "get", "--timeout", "30s",
                                  "http://cart:8080/slow?seconds=4")
            time.sleep(1)
            self.engine.docker("restart", "--time", "30", self.id("cart-proxy"))
            code, text = request.result()
        self.check("in flight", "cart's sidecar is restarted, over mTLS", "the answer arrives", None if code == 0 else f"{code}: {text}")
        self.engine.ready(self.id("cart-proxy"))
        during("docker-compose stop", slow, lambda: self.engine.compose(PROJECT, "stop"))
        for service, code in (("web-proxy", 0), ("cart-proxy", 0), ("web", 0), ("cart", 0), ("web-net", 0), ("cart-net", 0)):
            state = self.engine.state(self.id(service))
            self.check("docker-compose stop", f"{service} ends", "exit code 0",
                       None if state["Status"] == "exited" and state["ExitCode"] == code else str(state))

    def after_a_reboot(self):
        """What an engine starts again by itself must not run without its rules."""
        for service in ("web", "web-proxy"):
            code, text = self.engine.attempt("start", self.id(service))
            self.check("after a reboot", f"{service} is started without the holder of its network", "does not start",
                       None if code != 0 else "it runs")
        self.engine.compose(PROJECT, "up", "--detach")
        self.works("after a reboot", "docker-compose up again", 30)
        said = self.engine.docker("logs", "--tail", "1", self.id("ca-init"))
        self.check("after a reboot", "the authority", "unchanged", None if "unchanged" in said else said)


def run(engine, report):
    start = QuickStart(engine, report)
    start.start()
    start.refuses("plaintext from outside")
    start.least_privilege()
    start.beside_a_sidecar()
    start.live_policy()
    start.one_caller_is_denied()
    start.legacy_service()
    start.health()
    start.seen()
    start.authority()
    start.restarts()
    start.dead_sidecar()
    start.in_flight()
    start.after_a_reboot()
    start.refuses("plaintext from outside, again")
    engine.compose(PROJECT, "down", "--volumes", "--timeout", "5")
    left = engine.docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
    report.add("Quick start: end", "docker-compose down --volumes", "nothing is left", left or None)
