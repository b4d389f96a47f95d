"""The app behind the inbound sidecar, and the client before the outbound one. Both speak plaintext or TLS of their own."""

import contextlib
import os
import socket
import ssl
import threading

TIMEOUT = 5


class EchoApp:
    """Echoes on 127.0.0.1 or a listener of the caller's, and remembers every byte that reached it. With a leaf it
    also accepts TLS."""

    def __init__(self, leaf=None, listener=None):
        self.tls = None
        if leaf:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(leaf.certificate, leaf.key)
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.received = []
        threading.Thread(target=self._accept, daemon=True).start()

    def saw(self, payload):
        return any(payload in bytes(received) for received in self.received)

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        received = bytearray()
        self.received.append(received)
        # A refused client's reset is not an error of the app.
        with contextlib.suppress(OSError), connection:
            if self.tls and connection.recv(1, socket.MSG_PEEK) == b"\x16":
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                self.converse(connection, received)

    def converse(self, connection, received):
        """Serves one connection; appends the bytes it reads to `received`."""
        while data := connection.recv(65536):
            received += data
            connection.sendall(data)


def connect_locally(port):
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


def exchange(port, own_tls=False, size=300_000, connect=connect_locally):
    """Sends a payload to where `connect` connects and reads the echo, then ends both directions. Returns (outcome,
    payload): the outcome is `echoed`, `closed` with what the client noticed (nothing came back), or what else went
    wrong."""
    payload = os.urandom(16).hex().encode() + os.urandom(size)
    try:
        with connect(port) as connection:
            connection.settimeout(TIMEOUT)
            if own_tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                connection = context.wrap_socket(connection, server_hostname="app.example")
            return _echo(connection, payload), payload
    except TimeoutError:
        return "no answer in time", payload
    except (ConnectionError, ssl.SSLError) as error:
        return f"closed: {error}", payload


def _echo(connection, payload):
    if isinstance(connection, ssl.SSLSocket):
        # One thread, in lockstep: CPython before 3.13 lets two threads into one SSL object, which then breaks at random.
        echo = b"".join(_exchange_tls(connection, payload[n:n + 16_384]) for n in range(0, len(payload), 16_384))
    else:
        echo = _exchange_plain(connection, payload)
    if len(echo) < len(payload):
        return "closed" if not echo else f"cut off after {len(echo)} of {len(payload)} bytes"
    if echo != payload:
        return "echoed, but other bytes"
    if isinstance(connection, ssl.SSLSocket):
        return "echoed"
    connection.shutdown(socket.SHUT_WR)
    return "echoed, but bytes after it" if connection.recv(1) else "echoed"


def _exchange_tls(connection, part):
    connection.sendall(part)
    return _read(connection, len(part))


def _exchange_plain(connection, payload):
    """Sends and reads at once, so that both directions are full."""
    def send():
        with contextlib.suppress(OSError):
            connection.sendall(payload)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    echo = _read(connection, len(payload))
    if len(echo) == len(payload):
        sender.join()
    return echo


def _read(connection, size):
    """Up to `size` bytes, fewer only if the other side ends."""
    read = bytearray()
    while len(read) < size and (data := connection.recv(65536)):
        read += data
    return bytes(read)
