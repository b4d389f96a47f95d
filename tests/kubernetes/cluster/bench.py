"""The server, the sidecars before it, and what can be seen of them from outside."""

import contextlib
import http.client
import json
import pathlib
import ssl
import time
import urllib.error
import urllib.request

from rig import portcullis
from rig.apiserver import ApiServer, Relay
from rig.app import EchoApp, exchange
from rig.certificates import CLIENT, SERVER, Authority
from rig.processes import until

CONFIG = pathlib.Path(__file__).resolve().parents[3] / "config" / "kubernetes"
SECURITY = "security.istio.io/v1"
# What the document promises; the server and the sidecars share two cores here with whatever else runs.
A_SECOND = 1.0


def peer_authentication(name, mode, namespace="shop", **spec):
    mtls = {"mtls": {"mode": mode}} if mode else {}
    return {"apiVersion": SECURITY, "kind": "PeerAuthentication", "metadata": {"name": name, "namespace": namespace},
            "spec": {**mtls, **spec}}


class Sidecar(portcullis.Portcullis):
    """A sidecar of shop/cart that takes its policies from the API server."""

    def __init__(self, bench, name, startup="wait", copy=None):
        super().__init__(name, bench.folder, bench.binary, SERVER, bench.leaf)
        del self.config["policies"]
        self.config["kubernetes"] = {
            "address": f"127.0.0.1:{bench.relay.port}", "serviceAccountFolder": str(bench.account), "startup": startup}
        if copy:
            self.config["kubernetes"]["copyFolder"] = str(copy)
        self.listen = self.inbound("PERMISSIVE", bench.app.port)
        self.bench = bench

    def plaintext(self):
        # A refusal may reach this side before its own end is written.
        with contextlib.suppress(OSError):
            return exchange(self.listen, size=16)[0] == "echoed"
        return False

    def page(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/policies", timeout=5) as answer:
            return json.load(answer)["kubernetes"]

    def reason(self):
        problem = self.page()["problem"]
        return problem and problem["reason"]

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/healthz/ready", timeout=5) as answer:
                return answer.status == 200, ""
        except urllib.error.HTTPError as error:
            return False, error.read().decode()

    def is_stale(self):
        return self.metrics()["portcullis_kubernetes_stale"] == 1

    def resident(self):
        """Anonymous memory in kB: what the process itself holds."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("RssAnon")))

    def end(self):
        self.process.terminate()
        self.process.wait(30)


class Bench:
    def __init__(self, binary, folder, processes):
        self.binary, self.folder, self.processes = binary, folder, processes
        authority = Authority.openssl(folder / "ca")
        self.leaf = authority.issue(folder / "server-leaf", SERVER)
        self.client_leaf = authority.issue(folder / "client-leaf", CLIENT)
        self.app = EchoApp()
        self.server = ApiServer(folder / "api", processes)
        self.server.start_etcd()
        self.server.start()
        self.relay = Relay(self.server.port)
        self.account = folder / "account"
        self.account.mkdir()
        for namespace in ("istio-system", "shop", "other"):
            self.server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        self.server.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "cart", "namespace": "shop"}})
        self.install()
        self.write_token(self.server.token("shop", "cart"))
        (self.account / "ca.crt").write_bytes((self.server.folder / "ca.crt").read_bytes())

    def install(self):
        self.server.kubectl("apply", "-f", str(CONFIG / "crds"))
        self.server.kubectl("wait", "--for", "condition=Established", "crd", "--all", "--timeout", "30s")
        self.server.kubectl("apply", "-f", str(CONFIG / "rbac.yaml"))

    def write_token(self, token):
        new = self.account / ".token"
        new.write_text(token)
        new.chmod(0o600)
        new.rename(self.account / "token")

    def may_list(self):
        """Whether the server lets the sidecars list. It takes a moment to see a change of its own roles."""
        request = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": "system:serviceaccount:shop:cart", "groups": ["system:serviceaccounts", "system:serviceaccounts:shop"],
            "resourceAttributes": {"group": "security.istio.io", "resource": "peerauthentications", "namespace": "shop", "verb": "list"}}}
        answer = self.server.kubectl("create", "-f", "-", "-o", "json", given=json.dumps(request))
        return json.loads(answer)["status"]["allowed"]

    def sidecar(self, name, **options):
        return Sidecar(self, name, **options)

    def client_of(self, sidecar):
        """A port that leads to the sidecar over mTLS."""
        client = portcullis.client(f"client-of-{sidecar.name}", self.folder, self.binary, self.client_leaf)
        port = client.outbound(sidecar.listen)
        client.start(self.processes)
        return port

    def timed(self, condition, seconds=20):
        """How long it took until the condition held, or None."""
        begun = time.monotonic()
        return time.monotonic() - begun if until(condition, seconds) else None

    def clear(self):
        for namespace in ("istio-system", "shop", "other"):
            for kind in ("peerauthentications", "authorizationpolicies"):
                self.server.kubectl("delete", kind, "--all", "-n", namespace)


class Writer:
    """One kept connection as the administrator, for more changes than kubectl can make."""

    def __init__(self, server):
        context = ssl.create_default_context(cafile=str(server.folder / "ca.crt"))
        self.connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)
        self.headers = {"Authorization": f"Bearer {server.admin_token}", "Content-Type": "application/merge-patch+json"}

    def patch(self, name, spec):
        path = f"/apis/{SECURITY}/namespaces/shop/peerauthentications/{name}"
        self.connection.request("PATCH", path, json.dumps({"spec": spec}), self.headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status == 200
