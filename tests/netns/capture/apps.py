"""The apps behind the inbound sidecar, and what a client does with a connection."""

import contextlib
import hashlib
import os
import socket
import threading

from rig.app import EchoApp

GREETING = b"220 the server speaks first\r\n"


class DigestApp(EchoApp):
    """Reads to the end, then answers with the digest of what it read and `ANSWER`."""

    ANSWER = os.urandom(1 << 20) * 5

    def converse(self, connection, received):
        while data := connection.recv(65536):
            received += data
        connection.sendall(hashlib.sha256(received).digest() + self.ANSWER)


class GreetingApp(EchoApp):
    """Speaks first, then echoes."""

    def converse(self, connection, received):
        connection.sendall(GREETING)
        super().converse(connection, received)


class ProxyProtocolApp(EchoApp):
    """Reads a PROXY header of version 2, prints its fields in one line, then echoes."""

    SPIFFE_ID = 0xE5

    def converse(self, connection, received):
        fixed = _read(connection, 16)
        rest = _read(connection, int.from_bytes(fixed[14:]))
        family, width = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}[fixed[13]]
        source, destination = (socket.inet_ntop(family, rest[at:at + width]) for at in (0, width))
        port = int.from_bytes(rest[2 * width + 2:2 * width + 4])
        tlvs, at = {}, 2 * width + 4
        while at < len(rest):
            end = at + 3 + int.from_bytes(rest[at + 1:at + 3])
            tlvs[rest[at]] = rest[at + 3:end]
            at = end
        peer = tlvs.get(self.SPIFFE_ID, b"-").decode()
        connection.sendall(f"{source} {destination} {port} {peer}\n".encode())
        super().converse(connection, received)


def proxy_header(connect, payload=b"who am I?"):
    """The header that a `ProxyProtocolApp` received, read once the payload has been echoed."""
    with connect() as connection:
        connection.settimeout(5)
        connection.sendall(payload)
        seen = b""
        while not seen.endswith(payload) and (data := connection.recv(4096)):
            seen += data
    return seen.removesuffix(b"\n" + payload).decode(errors="replace"), payload


def upload(connect, size=8 << 20):
    """Half-closes after `size` bytes and reads the answer of a `DigestApp`."""
    payload = os.urandom(size)
    with connect() as connection:
        connection.settimeout(20)

        def send():
            with contextlib.suppress(OSError):
                connection.sendall(payload)
                connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        answer = bytearray()
        try:
            while data := connection.recv(1 << 20):
                answer += data
        except OSError as error:
            return f"{error} after {len(answer)} bytes", payload
    if bytes(answer[:32]) != hashlib.sha256(payload).digest():
        return f"the app got other bytes ({len(answer)} bytes of answer)", payload
    return "complete" if answer[32:] == DigestApp.ANSWER else "the answer has other bytes", payload


def greeted(connect):
    """Waits for the server's greeting, then sends one word that is echoed."""
    with connect() as connection:
        try:
            seen = _read(connection, len(GREETING))
            connection.sendall(b"thanks")
            seen += _read(connection, len(b"thanks"))
        except OSError as error:
            return str(error), b"thanks"
    return "greeted" if seen == GREETING + b"thanks" else repr(seen), b"thanks"


def ending(connect, payload=b"hello\n"):
    """How a connection with one payload ends: `reset`, `refused`, `closed` (a FIN and no byte), or otherwise."""
    try:
        connection = connect()
    except ConnectionRefusedError:
        return "refused", payload
    except ConnectionResetError:
        # Accepted and reset before we noticed the first.
        return "reset", payload
    with connection:
        try:
            connection.sendall(payload)
            answer = connection.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            return "reset", payload
        except TimeoutError:
            return "no answer in time", payload
    return f"answered with {answer[:100]!r}" if answer else "closed", payload


def healthy(connect):
    """The status line of a sidecar's readiness."""
    with connect() as connection:
        connection.sendall(b"GET /healthz/ready HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n")
        return connection.recv(65536).split(b"\r\n")[0].removeprefix(b"HTTP/1.1 ").decode()


def _read(connection, size):
    seen = b""
    while len(seen) < size and (data := connection.recv(size - len(seen))):
        seen += data
    return seen
