"""`portcullis compose add` for a third-party compose file with third-party apps."""

import subprocess
import threading
import time

from rig.processes import RigError

from . import view
from .docker import APPS, IMAGE, eventually, get

PROJECT = "portcullis-test-added"
GROUP = "compose add"
API_ID, DB_ID = "spiffe://cluster.local/ns/default/sa/api", "spiffe://cluster.local/ns/default/sa/db"
OTHER_ID = "spiffe://cluster.local/ns/default/sa/other"

# Common features: an app that ignores SIGTERM (a shell as PID 1), an anchor, a short `depends_on`, a restart policy, an
# alias, a published port.
COMPOSE = f"""\
version: "3.7"
x-app: &app
  image: {APPS}
  restart: always
services:
  api:
    <<: *app
    command: [sh, -c, "mkdir -p /www && echo from api: $$HOME > /www/index.html && httpd -p 8000 -h /www && while :; do sleep 1; done"]
    environment: {{HOME: /nowhere}}
    ports: ["8091:8000"]
    depends_on: [db]
  db:
    <<: *app
    command: [sh, -c, "mkdir -p /www && echo 'from db' > /www/index.html && httpd -p 8000 -h /www && while :; do sleep 1; done"]
    networks: {{default: {{aliases: [database]}}}}
  other:
    <<: *app
    command: [sleep, "1000"]
"""
STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""


def _restarted(engine, check):
    """An engine that restarts everything keeps no order. These apps take no notice of SIGTERM, so they come last: everything works again
    by itself. No connection may bypass the sidecar at any time."""
    restarting = threading.Thread(target=lambda: engine.attempt_compose(PROJECT, "restart", "--timeout", "4"))
    restarting.start()
    asked, answered, end = 0, 0, None
    while end is None or time.monotonic() < end:
        if end is None and not restarting.is_alive():
            end = time.monotonic() + 4
        status, body = get("http://localhost:8091/", 1)
        asked += 1
        answered += "from api" in body
        time.sleep(0.02)
    check(f"docker-compose restart, STRICT: plaintext asked {asked} times", "never answered",
          None if not answered and asked > 20 else f"{answered} of {asked}")
    for name in ("api", "db"):
        code, text = engine.attempt("exec", engine.container(PROJECT, f"{name}-net"), "/portcullis", "intercept", "verify")
        check(f"after that, {name}-net", "the rules as planned", None if code == 0 and "as planned" in text else f"{code}: {text}")
    good, text = eventually(lambda: _asks(engine, "api", "db"), 60)
    check("after that, by itself", "api asks db, and is answered", None if good else text)
    status, body = get("http://localhost:8091/")
    check("after that, by itself", "the published port is refused with a hint",
          None if "Mutual TLS is required" in body else f"{status}: {body}")


def _left_behind(engine, check):
    """A part that waits in a namespace while its holder gets another one, as an engine that restarts everything makes it."""
    net, proxy, ready, app = (engine.container(PROJECT, name) for name in ("api-net", "api-proxy", "api-ready", "api"))
    engine.docker("stop", proxy)
    engine.docker("start", ready)
    engine.docker("restart", "--time", "1", net)
    good, state = eventually(lambda: (not engine.state(ready)["Running"], engine.state(ready)), 10)
    said = engine.docker("logs", ready)
    check("api-ready, while its holder is restarted", "fails within 10 s, and says why",
          None if good and state["ExitCode"] == 1 and "was replaced by another one" in said else f"{state}: {said}")
    engine.docker("start", proxy)
    engine.docker("restart", "--time", "1", app)


def _as_typed(engine, check):
    """Commands in the container of a sidecar, as the guide has them, and those that see what that one cannot."""
    def typed(case, expected, *words, code, needles):
        found, text = engine.attempt("exec", *words)
        check(case, expected, None if found == code and all(needle in text for needle in needles) else f"{found}: {text}")

    net, proxy = engine.container(PROJECT, "db-net"), engine.container(PROJECT, "db-proxy")
    typed("docker exec db-proxy /portcullis connections", "exit code 0", proxy, "/portcullis", "connections", code=0, needles=["PEER ID"])
    # It has had calls, which is the proof that they are redirected.
    typed("docker exec db-proxy /portcullis check", "nothing is wrong", proxy, "/portcullis", "check", code=0,
          needles=["√ redirect rules are in force"])
    verify = ("/portcullis", "intercept", "verify")
    typed("docker exec db-proxy /portcullis intercept verify", "81, and where it can be seen", proxy, *verify, code=81,
          needles=["?       rules", "docker exec NAME-net", "?       IPv4 outbound", "--user 1000"])
    typed("docker exec --user 1000 db-proxy /portcullis intercept verify", "the probe is taken", "--user", "1000", proxy, *verify, code=81,
          needles=["?       rules", "ok      IPv4 outbound", "the sidecar took"])
    typed("docker exec db-net /portcullis intercept verify", "all of it", net, *verify, code=0,
          needles=["ok      rules", "ok      IPv4 outbound"])


def _added(folder, *services, file):
    """What `compose add` prints. Notes are on the other stream."""
    done = subprocess.run(
        ["docker", "run", "--rm", "--volume", f"{folder}:/w", "--network", "none", IMAGE, "compose", "add", *services, "-f", f"/w/{file}",
         "--image", IMAGE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode != 0:
        raise RigError(f"compose add {services}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def _added_later(engine, folder, check):
    """One more service, on top of the file that has sidecars already, while all of it runs."""
    group = "other is added later, STRICT"
    mesh, later = folder / "compose.mesh.yaml", folder / "compose.later.yaml"
    later.write_text(_added(folder, "other", file=mesh.name))
    engine.up(PROJECT, later)
    for who, whom in (("other", "db"), ("api", "db")):
        good, text = eventually(lambda who=who, whom=whom: _asks(engine, who, whom), 30)
        check(f"{group}: {who} asks {whom}", "is answered", None if good and text == "from db\n" else text)
    lines = engine.access(engine.container(PROJECT, "db-proxy"))
    check(f"{group}, as db's sidecar saw it", "mTLS, its own identity",
          None if any("transport=mtls" in line and OTHER_ID in line and "decision=allow" in line for line in lines) else str(lines))
    said = engine.docker("logs", engine.container(PROJECT, "ca-init"))
    check(f"{group}: the authority", "the same, with one more identity",
          None if said.count("registered: ") == 1 and OTHER_ID in said and "unchanged: a CA is in" in said else said)
    said = engine.docker("exec", engine.container(PROJECT, "ca"), "/portcullis", "ca", "log", "--dir", "/var/lib/portcullis/ca")
    for identity in (API_ID, DB_ID, OTHER_ID):
        check(f"certificate of {identity.rsplit('/', 1)[-1]}", "issued by the authority", None if identity in said else said)
    for service in ("api", "db", "other"):
        mounts = {mount["Name"].rsplit("_", 1)[-1]
                  for mount in engine.inspect(engine.container(PROJECT, f"{service}-proxy"))["Mounts"] if mount["Type"] == "volume"}
        own = {f"{service}-identity", f"{service}-admin", f"{service}-ledger"}
        check(f"volumes of {service}'s sidecar", "its own token, socket and ledger", None if mounts == own else str(mounts))


def _asks(engine, service, host, project=PROJECT):
    """Whether it is answered, and with what. (The wget of this busybox does not survive a static build.)"""
    code, text = engine.attempt("exec", engine.container(project, service), "sh", "-c",
                                f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {host} 8000")
    body = text.replace("\r\n", "\n").split("\n\n", 1)[-1]
    return code == 0 and " 200 OK" in text, body


def run(engine, report):
    folder = engine.folder / "added"
    policies = folder / "policies"
    policies.mkdir(parents=True)
    original = folder / "compose.yaml"
    original.write_text(COMPOSE)

    def check(case, expected, problem):
        report.add(GROUP, case, expected, problem)

    def asks(service, host):
        return _asks(engine, service, host)

    mesh = folder / "compose.mesh.yaml"
    mesh.write_text(_added(folder, "api", "db", file="compose.yaml"))
    check("the original", "stays as it is", None if original.read_text() == COMPOSE else original.read_text())
    engine.up(PROJECT, mesh)

    for name in ("db", "database"):
        good, text = eventually(lambda name=name: asks("api", name), 20)
        check(f"api asks {name}", "is answered", None if good and text == "from db\n" else text)
    lines = engine.access(engine.container(PROJECT, "db-proxy"))
    both = [line for line in lines if "transport=mtls" in line and API_ID in line and DB_ID in line]
    check("both, as db's sidecar saw it", "mTLS, both identities", None if len(both) == 2 else str(lines))
    status, body = get("http://localhost:8091/")
    check("the published port, no policy yet", "is answered", None if body == "from api: /nowhere\n" else f"{status}: {body}")
    good, text = asks("other", "db")
    check("a service that was not added, no policy yet", "is answered", None if good else text)

    (policies / "mesh.yaml").write_text(STRICT)
    good, text = eventually(lambda: (not asks("other", "db")[0], "it is still answered"))
    check("a service that was not added, STRICT", "is refused", None if good else text)
    good, text = asks("api", "db")
    check("api asks db, STRICT", "is answered", None if good else text)
    status, body = get("http://localhost:8091/")
    check("the published port, STRICT", "is refused with a hint", None if "Mutual TLS is required" in body and "from api" not in body else
          f"{status}: {body}")

    view.run(engine, check, PROJECT, ("api", "db"))
    _as_typed(engine, check)
    _restarted(engine, check)
    _left_behind(engine, check)
    _added_later(engine, folder, check)

    code, text = engine.attempt("run", "--rm", "--volume", f"{folder}:/w", IMAGE, "compose", "add", "api", "absent", "-f",
                                "/w/compose.yaml")
    check("a service that does not exist", "exit code 65, and which there are",
          None if code == 65 and "absent" in text and "other" in text else f"{code}: {text}")
    engine.compose(PROJECT, "down", "--volumes", "--timeout", "3")
