"""dnsmasq, and a server that misbehaves on purpose."""

import os
import signal
import socket
import struct
import threading
import time

from rig.processes import RigError, free_port, tail, until


class Dnsmasq:
    """Answers for shop.test from a file of hosts, and forwards bad.test to the server that misbehaves."""

    def __init__(self, folder, processes, bad_port):
        self.folder, self.processes, self.bad_port = folder, processes, bad_port
        self.port = free_port()
        self.hosts = folder / "hosts"
        self.hosts.write_text("")
        self.log = folder / "queries.log"
        self.process = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self, ttl):
        """Starts it; `ttl` holds for each name of the file."""
        command = [
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--pid-file=",
            f"--port={self.port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--cache-size=0", "--log-queries",
            f"--log-facility={self.log}", f"--addn-hosts={self.hosts}", f"--local-ttl={ttl}", "--local=/shop.test/",
            f"--server=/bad.test/127.0.0.1#{self.bad_port}",
            "--txt-record=text.shop.test,no address",
            "--cname=alias.shop.test,cart.shop.test",
        ]
        if os.geteuid() == 0:
            command.append("--user=root")
        self.process = self.processes.start("dnsmasq", command)

        def ready():
            if self.process.poll() is not None:
                raise RigError(f"dnsmasq ended:\n{tail(self.process.log)}")
            with socket.socket() as attempt:
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


class BadServer:
    """Answers by name: servfail.bad.test with SERVFAIL, slow.bad.test after a second, half.bad.test with an A record only and
    SERVFAIL for AAAA, and any other never."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            question, client = self.socket.recvfrom(4096)
            threading.Thread(target=self._answer, args=(question, client), daemon=True).start()

    def _answer(self, question, client):
        labels, end = [], 12
        while question[end]:
            labels.append(question[end + 1:end + 1 + question[end]].decode().lower())
            end += question[end] + 1
        kind = struct.unpack("!H", question[end + 1:end + 3])[0]
        asked = question[12:end + 5]

        def send(code, *addresses):
            header = question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(addresses), 0, 0)
            records = b"".join(
                b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(address) for address in addresses)
            self.socket.sendto(header + asked + records, client)

        is_a = kind == 1
        if labels[0] == "servfail" or (labels[0] == "half" and not is_a):
            send(2)
        elif labels[0] == "half":
            send(0, "10.0.7.1")
        elif labels[0] == "slow":
            time.sleep(1)
            send(0, *(["10.0.8.1"] if is_a else []))
