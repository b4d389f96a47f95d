"""Debian's dnsmasq, which answers for one domain from a file of hosts."""

import contextlib
import os
import signal
import socket

from .processes import RigError, tail, until

PACKAGES = {"dnsmasq": "dnsmasq-base"}


class Dnsmasq:
    """Listens on 127.0.0.1; `arguments` are more of its own. `wrapper` is a command that runs it elsewhere, and `inside` is the
    context in which it can be reached there."""

    def __init__(self, folder, processes, port, domain, arguments=(), wrapper=(), inside=None):
        self.processes, self.port, self.domain = processes, port, domain
        self.arguments, self.wrapper, self.inside = arguments, wrapper, inside or contextlib.nullcontext()
        self.hosts = folder / "dnsmasq-hosts"
        self.hosts.write_text("")
        self.log = folder / "dnsmasq-queries.log"
        self.process = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self, ttl):
        """Starts it; `ttl` holds for each name of the file."""
        command = [
            *self.wrapper, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--pid-file=",
            f"--port={self.port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--cache-size=0", "--log-queries",
            f"--log-facility={self.log}", f"--addn-hosts={self.hosts}", f"--local-ttl={ttl}", f"--local=/{self.domain}/",
            *self.arguments,
        ]
        if os.geteuid() == 0:
            command.append("--user=root")
        self.process = self.processes.start("dnsmasq", command)

        def ready():
            if self.process.poll() is not None:
                raise RigError(f"dnsmasq ended:\n{tail(self.process.log)}")
            with self.inside, socket.socket() as attempt:
                return attempt.connect_ex(("127.0.0.1", self.port)) == 0

        if not until(ready, 5):
            raise RigError("dnsmasq does not listen")

    def write(self, *lines):
        """Replaces the names, and has them read."""
        self.hosts.write_text("".join(f"{line}\n" for line in lines))
        if self.process is not None:
            before = self._reads()
            self.process.send_signal(signal.SIGHUP)
            if not until(lambda: self._reads() > before, 5):
                raise RigError("dnsmasq does not read its file again")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def queries(self, name):
        """How often the name was asked for."""
        return self.log.read_text().count(f"query[A] {name} from")

    def _reads(self):
        return self.log.read_text().count(f"read {self.hosts}")
