"""A real kube-apiserver with etcd on 127.0.0.1, and kubectl. Certificates and tokens are made at run time."""

import json
import os
import pathlib
import socket
import subprocess
import threading

from . import kubernetes_build
from .processes import RigError, free_port, run, tail, until

_ADMIN = "rig-admin"
_SERVER_CONF = """
[req]
distinguished_name = name
prompt = no
[name]
CN = kube-apiserver
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
"""
READY_SECONDS = 60


class ApiServer:
    """Start it, and kill and start it again as often as needed: its data are in etcd, which goes on."""

    def __init__(self, folder, processes):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.processes = processes
        self.programs = kubernetes_build.programs()
        self.port, self.etcd_port = free_port(), free_port()
        self.process = None
        self._make_files()

    def _make_files(self):
        folder = self.folder
        for name in ("ca", "server", "accounts"):
            run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", folder / f"{name}.key"])
            os.chmod(folder / f"{name}.key", 0o600)
        run(["openssl", "req", "-x509", "-new", "-key", folder / "ca.key", "-days", "2", "-subj", "/CN=rig", "-out", folder / "ca.crt"])
        # The server signs tokens with a key in PKCS 8, but does not derive the public key of such a one.
        run(["openssl", "pkey", "-in", folder / "accounts.key", "-pubout", "-out", folder / "accounts.pub"])
        (folder / "server.cnf").write_text(_SERVER_CONF)
        run(["openssl", "req", "-new", "-key", folder / "server.key", "-config", folder / "server.cnf", "-out", folder / "server.csr"])
        run(["openssl", "x509", "-req", "-in", folder / "server.csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
             "-CAcreateserial", "-days", "2", "-extfile", folder / "server.cnf", "-extensions", "server", "-out", folder / "server.crt"])
        self.admin_token = os.urandom(16).hex()
        (folder / "tokens.csv").write_text(f'{self.admin_token},{_ADMIN},{_ADMIN},"system:masters"\n')
        (folder / "kubeconfig").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "rig",
            "clusters": [{"name": "rig", "cluster": {
                "server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(folder / "ca.crt")}}],
            "users": [{"name": "rig", "user": {"token": self.admin_token}}],
            "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "rig"}}],
        }))
        for name in ("tokens.csv", "kubeconfig"):
            os.chmod(folder / name, 0o600)

    def start_etcd(self):
        own = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{free_port()}"
        self.processes.start("etcd", [
            str(self.programs / "etcd"), "--data-dir", str(self.folder / "etcd"), "--listen-client-urls", own, "--advertise-client-urls", own,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
            "--unsafe-no-fsync"])

    def start(self):
        folder = self.folder
        self.process = self.processes.start("kube-apiserver", [
            str(self.programs / "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{self.etcd_port}", "--bind-address=127.0.0.1",
            f"--secure-port={self.port}", "--insecure-port=0", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/24",
            f"--tls-cert-file={folder}/server.crt", f"--tls-private-key-file={folder}/server.key", "--authorization-mode=RBAC",
            f"--token-auth-file={folder}/tokens.csv", f"--service-account-key-file={folder}/accounts.pub",
            f"--service-account-signing-key-file={folder}/accounts.key", "--service-account-issuer=https://rig.test",
            "--api-audiences=https://rig.test", "--disable-admission-plugins=ServiceAccount"])

        def ready():
            if self.process.poll() is not None:
                raise RigError(f"kube-apiserver ended:\n{tail(self.process.log)}")
            return subprocess.run([*self._kubectl(), "get", "--raw", "/readyz"], capture_output=True, check=False).returncode == 0

        if not until(ready, READY_SECONDS):
            raise RigError(f"kube-apiserver is not ready:\n{tail(self.process.log)}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def _kubectl(self):
        return [str(self.programs / "kubectl"), "--kubeconfig", str(self.folder / "kubeconfig"), "--cache-dir", str(self.folder / "cache"),
                "--request-timeout", "20s"]

    def kubectl(self, *arguments, given=""):
        return run([*self._kubectl(), *arguments], given)

    def apply(self, *documents):
        """Documents as dictionaries."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        return self.kubectl("apply", "--validate=false", "-f", "-", given=text)

    def token(self, namespace, account, seconds=3600):
        """A token as the kubelet asks for it."""
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
            "audiences": ["https://rig.test"], "expirationSeconds": seconds}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return json.loads(self.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(request)))["status"]["token"]


class Relay:
    """A TCP relay before the server, whose connections can be cut: what a flaky network does to a watch."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = set()
        self.lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Ends every connection; returns how many there were."""
        with self.lock:
            ended, self.open = self.open, set()
        for one in ended:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        return len(ended)

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
                # The limit is for connecting: a watch is silent for as long as nothing changes.
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self.lock:
                self.open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        source.close()
