"""One connection by `openssl s_client`: a line is sent, and its echo or the end is waited for."""

import os
import re
import subprocess
import threading

# What a TLS alert is called in OpenSSL's errors, e.g. "SSL alert number 116".
_ALERT = re.compile(r"alert number (\d+)")


class Connection:
    """What came of it."""

    def __init__(self, text, echoed, sent):
        self.text = text
        self.sent = sent
        self.echoed = echoed
        # "New" or "Reused", if the client's half of the handshake was done.
        found = re.search(r"^(New|Reused), (TLSv[\d.]+|\(NONE\))", text, re.MULTILINE)
        self.session = found[1] if found and found[2] != "(NONE)" else None
        self.version = found[2] if self.session else None
        self.tickets = text.count("Post-Handshake New Session Ticket")
        alert = _ALERT.search(text)
        self.alert = int(alert[1]) if alert else None

    def __str__(self):
        return (f"session {self.session}, {self.version}, alert {self.alert}, {self.tickets} tickets, "
                f"{'echoed' if self.echoed else 'not echoed'}")


def connect(port, *arguments, leaf=None, linger=0.0, seconds=10):
    """Connects to 127.0.0.1, with a client certificate if there is one. `linger` goes on listening after the echo,
    for tickets that come late."""
    # Digits only: s_client takes some letters at the start of a line as commands.
    token = str(int.from_bytes(os.urandom(8), "big") + 10**19)
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments]
    if leaf:
        command += ["-cert", leaf.certificate, "-key", leaf.key]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    overdue = threading.Timer(seconds, process.kill)
    overdue.start()
    lines = []
    echoed = False
    try:
        process.stdin.write(f"{token}\n".encode())
        process.stdin.flush()
        while line := process.stdout.readline():
            lines.append(line.decode("utf-8", "replace"))
            if token in lines[-1]:
                echoed = True
                break
        if echoed and linger:
            # What the server still sends arrives before the client is stopped.
            threading.Event().wait(linger)
    except BrokenPipeError:
        pass
    finally:
        rest, _ = _finish(process)
        overdue.cancel()
    lines.append(rest.decode("utf-8", "replace"))
    return Connection("".join(lines), echoed, token.encode())


def _finish(process):
    try:
        return process.communicate()
    except (BrokenPipeError, ValueError):
        return process.stdout.read(), process.wait()
