"""Two projects on one network and one authority: the second joins that of the first."""

from .added import _asks
from .docker import APPS, IMAGE, eventually

FIRST, SECOND, NETWORK = "portcullis-test-first", "portcullis-test-second", "portcullis-test-shared"
GROUP = "compose add --ca"
WEB_ID, CART_ID = "spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/default/sa/cart"

COMPOSE = f"""\
version: "3.7"
services:
  NAME:
    image: {APPS}
    command: [sh, -c, "mkdir -p /www && echo 'from NAME' > /www/index.html && httpd -p 8000 -h /www && while :; do sleep 1; done"]
    networks: [shared]
networks: {{shared: {{external: true, name: {NETWORK}}}}}
"""
STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
# What the second project has to know of the first.
ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cart, namespace: default}
spec:
  hosts: [cart.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: DNS
  ports: [{number: 8000, name: tcp, protocol: TCP}]
  endpoints: [{address: cart, labels: {app: cart}, serviceAccount: cart}]
"""


def _project(engine, name, *further):
    """The folder of a project with one service, the file with its sidecar, and what the command said."""
    folder = engine.folder / name
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    (folder / "policies" / "mesh.yaml").write_text(STRICT)
    (folder / "compose.yaml").write_text(COMPOSE.replace("NAME", name))
    code, said = engine.attempt("run", "--rm", "--volume", f"{folder}:/w", "--workdir", "/w", "--user", "0:0", "--network", "none", IMAGE,
                                "compose", "add", name, "--image", IMAGE, "--write", *further)
    return folder / "compose.mesh.yaml", code, said


def run(engine, report):
    def check(case, expected, problem):
        report.add(GROUP, case, expected, problem)

    engine.docker("network", "create", NETWORK)
    try:
        _run(engine, check)
    finally:
        for project in (SECOND, FIRST):
            if project in engine.projects and not engine.keep:
                engine.attempt_compose(project, "down", "--volumes", "--timeout", "3")
        engine.attempt("network", "rm", NETWORK)


def _run(engine, check):
    mesh, code, said = _project(engine, "cart")
    check("a root of its own in a network of other projects", "is made, with a warning",
          None if code == 0 and "is external" in said and "--ca HOST:PORT" in said else f"{code}: {said}")
    engine.up(FIRST, mesh)
    authority = engine.container(FIRST, "ca")
    good, text = eventually(lambda: (engine.attempt("exec", authority, "/portcullis", "ca", "status", "--dir",
                                                    "/var/lib/portcullis/ca")[0] == 0, "no status"), 30)
    check("the authority of the first project", "runs", None if good else text)
    said = engine.docker("exec", authority, "/portcullis", "ca", "join-token", "create", "--dir", "/var/lib/portcullis/ca", "--id", WEB_ID)
    # Beside it, what to do with it.
    token = next(line for line in said.splitlines() if line.startswith("pcjoin1."))
    folder = engine.folder / "web"
    folder.mkdir()
    file = folder / "join-token"
    file.write_text(token)
    # As an ordinary user keeps it.
    file.chmod(0o600)
    mesh, code, said = _project(engine, "web", "--ca", "ca:15012", "--token-file", "join-token")
    check("the second project joins", "without a warning", None if code == 0 and "external" not in said else f"{code}: {said}")
    text = mesh.read_text()
    check("its file", "has no authority", None if "ca run" not in text and "portcullis-authority" not in text and "ca-join" in text else text)
    (folder / "policies" / "cart.yaml").write_text(ENTRY)
    engine.up(SECOND, mesh)
    good, text = eventually(lambda: _asks(engine, "web", "cart", SECOND), 40)
    check("web asks cart of the other project, both STRICT", "is answered", None if good and text == "from cart\n" else text)
    lines = engine.access(engine.container(FIRST, "cart-proxy"))
    seen = [line for line in lines if "transport=mtls" in line and WEB_ID in line and CART_ID in line and "decision=allow" in line]
    check("as cart's sidecar saw it", "mTLS, both identities", None if seen else str(lines))
    listed = engine.docker("exec", authority, "/portcullis", "ca", "join-token", "list", "--dir", "/var/lib/portcullis/ca")
    check("the join token", "is used up", None if "used up" in listed else listed)

    proxy = engine.container(SECOND, "web-proxy")
    engine.docker("restart", "--time", "3", proxy)
    good = engine.ready(proxy)
    check("the sidecar restarts", "with the token that it has got for that", None if good else engine.attempt("logs", proxy)[1][-2000:])
    engine.compose(SECOND, "up", "--detach")
    said = engine.docker("logs", engine.container(SECOND, "ca-join"))
    check("another docker-compose up", "spends no other token", None if "used up" not in said else said)
    engine.compose(SECOND, "up", "--detach", "--force-recreate")
    said = engine.docker("logs", engine.container(SECOND, "ca-join"))
    good, text = eventually(lambda: _asks(engine, "web", "cart", SECOND), 40)
    check("docker-compose up --force-recreate", "all is there, nobody is asked again",
          None if good and "unchanged" in said else f"{text}: {said}")
