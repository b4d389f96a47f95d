"""Real servers and real clients behind the sidecars: nginx, Redis, PostgreSQL and a mail server, each in all three modes.

They use no TLS of their own, and none is configured for a proxy."""

import glob
import hashlib
import os
import pwd
import socketserver
import subprocess
import threading

from rig.processes import RigError, run, until

from . import topology as t
from .namespaces import FAMILIES, SIDECAR_UID, address

NGINX, REDIS, POSTGRES, SMTP = 8101, 6379, 5432, 25
PORTS = (NGINX, REDIS, POSTGRES, SMTP)
PAGE_BYTES = 3 << 20

# Required programs, and the package of each.
PACKAGES = {
    "nginx": "nginx-light",
    "redis-server": "redis-server",
    (lambda: _postgres("postgres")): "postgresql",
    "psql": "postgresql-client",
    "curl": "curl",
}


class Servers:
    """All four, in the server's namespace."""

    def __init__(self, topology):
        self.topology = topology
        self.folder = topology.folder / "servers"
        self.folder.mkdir()
        self.folder.chmod(0o755)
        page = os.urandom(PAGE_BYTES)
        self.page = hashlib.sha256(page).hexdigest()
        self.mail = []
        self._nginx(page)
        self._start("redis", ["redis-server", "--port", REDIS, "--bind", "*", "-::*", "--protected-mode", "no", "--save", "",
                              "--dir", self.folder], REDIS)
        self._postgres()
        self._smtp()

    def stop(self):
        self.smtp.shutdown()
        self.smtp.server_close()

    def _start(self, name, command, port):
        process = self.topology.processes.start(
            name, ["ip", "netns", "exec", self.topology.server.name, *map(str, command)])

        def answers():
            if process.poll() is not None:
                raise RigError(f"{name} ended with exit code {process.returncode}: see {process.log}")
            try:
                with self.topology.server:
                    self.topology.server.connect("127.0.0.1", port, timeout=1).close()
                return True
            except OSError:
                return False
        if not until(answers, 30):
            raise RigError(f"{name} does not answer: see {process.log}")

    def _nginx(self, page):
        root = self.folder / "html"
        root.mkdir()
        (root / "page").write_bytes(page)
        configuration = self.folder / "nginx.conf"
        configuration.write_text(f"""\
daemon off; master_process off; user root; pid {self.folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    server {{ listen {NGINX}; listen [::]:{NGINX} ipv6only=on; root {root}; }}
}}
""")
        self._start("nginx", ["nginx", "-p", self.folder, "-c", configuration, "-e", "stderr"], NGINX)

    def _postgres(self):
        owner = pwd.getpwnam("postgres")
        data = self.folder / "postgres"
        data.mkdir(mode=0o700)
        os.chown(data, owner.pw_uid, owner.pw_gid)
        as_owner = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        run([*as_owner, _postgres("initdb"), "-D", str(data), "-A", "trust", "--no-sync", "-U", "postgres"], cwd="/")
        with open(data / "pg_hba.conf", "a") as rules:
            rules.write("host all all all trust\n")
        self._start("postgres", [*as_owner, _postgres("postgres"), "-D", data, "-p", POSTGRES, "-h", "*", "-k", data,
                                 "-c", "fsync=off"], POSTGRES)

    def _smtp(self):
        """The server sends first. It accepts mail only from clients that follow RFC 5321."""
        mail = self.mail

        class Session(socketserver.StreamRequestHandler):
            def handle(self):
                self.say("220 cart.test ESMTP")
                while line := self.rfile.readline():
                    word = line[:4].upper().strip()
                    if word == b"DATA":
                        self.say("354 go on")
                        text = b"".join(iter(self.rfile.readline, b".\r\n"))
                        mail.append(text)
                        self.say("250 taken")
                    elif word == b"QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 cart.test")

            def say(self, line):
                self.wfile.write(line.encode() + b"\r\n")

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self.smtp = Server(("", 0), Session, bind_and_activate=False)
        self.smtp.socket.close()
        self.smtp.socket = self.topology.server.listen(SMTP)
        threading.Thread(target=self.smtp.serve_forever, daemon=True).start()

    # What the clients do; each returns None, or what went wrong.

    def curl_page(self, host):
        url = f"http://{_host(host)}:{NGINX}/page"
        # Two requests over one connection.
        body = self._client("curl", "-sS", "--fail", "--max-time", 10, url, url)
        seen = {hashlib.sha256(body[start:start + PAGE_BYTES]).hexdigest() for start in (0, PAGE_BYTES)}
        return None if seen == {self.page} and len(body) == 2 * PAGE_BYTES else f"{len(body)} other bytes"

    def redis(self, host):
        said = self._client("redis-cli", "-h", host, "-p", REDIS, given="".join(
            ["SET big ", "x" * 100_000, "\nSTRLEN big\n", *(f"INCR {host}\n" for _ in range(100)), f"DEL {host}\n"]))
        lines = said.decode().split()
        return None if lines[:2] == ["OK", "100000"] and lines[-2:] == ["100", "1"] else f"{lines[:3]} {lines[-3:]}"

    def postgres(self, host):
        said = self._client("psql", "-h", host, "-p", POSTGRES, "-U", "postgres", "-qtA", "-v", "ON_ERROR_STOP=1", "-c",
                            "create temporary table t as select n, repeat('x', 100) as text from generate_series(1, 20000) n",
                            "-c", "select sum(n), sum(length(text)) from t", "-c", "select text from t")
        lines = said.decode().split()
        return None if lines[0] == "200010000|2000000" and len(lines) == 20001 else f"{lines[:2]}, {len(lines)} lines"

    def curl_mail(self, host):
        before, text = len(self.mail), f"Subject: hello\r\n\r\n{os.urandom(20000).hex()}\r\n"
        self._client("curl", "-sS", "--max-time", 10, f"smtp://{_host(host)}:{SMTP}", "--mail-from", "web@shop.test",
                     "--mail-rcpt", "cart@shop.test", "-T", "-", given=text)
        return None if self.mail[before:] == [text.encode()] else f"{len(self.mail) - before} mails, or another one"

    def _client(self, *command, given=""):
        """Runs a client in its namespace, as an unprivileged user."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.topology.client.name, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
             *map(str, command)], input=given.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, cwd="/")
        if done.returncode:
            raise OSError(f"exit code {done.returncode}: {done.stderr.decode(errors='replace').strip()[-300:]}")
        return done.stdout


def _postgres(program):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{program}"))
    return found[-1] if found else None


def _host(host):
    return f"[{host}]" if ":" in host else host


def run_cases(topology):
    servers = Servers(topology)
    clients = {"nginx and curl": (NGINX, servers.curl_page), "Redis": (REDIS, servers.redis),
               "PostgreSQL": (POSTGRES, servers.postgres), "SMTP and curl": (SMTP, servers.curl_mail)}
    known = topology.inbound.policy
    try:
        for mode in ("STRICT", "PERMISSIVE", "DISABLE"):
            topology.change_policy(t.policy(**{f"p{port}": mode for port in PORTS}), NGINX, mode)
            for family in FAMILIES:
                for name, (port, act) in clients.items():
                    _check_server(topology, mode, family, name, port, act)
    finally:
        topology.change_policy(known, NGINX, "STRICT")
        servers.stop()


def _check_server(topology, mode, family, name, port, act):
    """Over mTLS where a sidecar terminates it, and in plaintext; each checks the server's access log as well."""
    for transport, host in (("mtls", t.MTLS), ("plaintext", t.UNKNOWN)):
        if (mode, transport) == ("DISABLE", "mtls"):
            continue
        before = len(topology.inbound.records())
        try:
            problem = act(address(family, host))
        except OSError as error:
            problem = str(error)
        refused = (mode, transport) == ("STRICT", "plaintext")
        if refused:
            problem = None if problem else "it was served"
        wanted = {"decision": "deny" if refused else "allow", "mode": mode, "port": port,
                  "transport": {"DISABLE": "-"}.get(mode, transport)}
        until(lambda: len(topology.inbound.records()) > before, 2)
        lines = topology.inbound.records()[before:]
        seen = [{key: line.get(key) for key in wanted} for line in lines]
        # The client waits for a greeting, so its protocol cannot be detected.
        if port == SMTP and mode != "DISABLE" and transport == "plaintext":
            for each in (*seen, wanted):
                each.pop("transport")
        if not seen or any(each != wanted for each in seen):
            problem = f"{problem or ''} the server's side logged {seen[:3]}, not {wanted}"
        topology.report.add(f"Real servers, {mode}, {family}", f"{name}, {transport}", "refused" if refused else "works", problem)
