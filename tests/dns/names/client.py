"""The example of crates/dns, as a process that is read line by line."""

import subprocess
import threading
import time

from rig.processes import RigError


class Client:
    """Each line with the time at which it came."""

    def __init__(self, binary, processes, names, servers, search=()):
        command = [binary]
        for server in servers:
            command += ["--server", server]
        for domain in search:
            command += ["--search", domain]
        self.process = subprocess.Popen(
            [*command, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        processes.running.append(self.process)
        self.lines, self.arrived = [], threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self.arrived:
                self.lines.append((time.monotonic(), line.strip()))
                self.arrived.notify_all()

    def wait(self, line, seconds=10, after=0):
        """When `line` came, not counting the first `after` lines. Fails with what came instead."""
        with self.arrived:
            found = self.arrived.wait_for(
                lambda: next((at for at, text in self.lines[after:] if text == line), None), seconds)
            if found is None:
                raise Missed(f"{[text for _, text in self.lines[after:]]}")
            return found

    def ask(self, command, seconds=10):
        """Sends a command; returns the next line that is no change of a name."""
        with self.arrived:
            after = len(self.lines)
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

        def answer():
            kinds = ("answer", "error", "owners", "busy")
            return next((text for _, text in self.lines[after:] if text.split()[0] in kinds), None)

        with self.arrived:
            found = self.arrived.wait_for(answer, seconds)
        if found is None:
            raise RigError(f"no answer to {command!r}")
        return found

    def count(self):
        with self.arrived:
            return len(self.lines)


class Missed(Exception):
    """What was seen instead of what was expected."""
