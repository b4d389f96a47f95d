"""The app behind the inbound sidecar, and the client before the outbound one. Both speak plaintext or TLS of their own."""

import contextlib
import os
import socket
import ssl
import threading

TIMEOUT = 5


class EchoApp:
    """Echoes on 127.0.0.1, in TLS to who begins with TLS, and remembers every byte that reached it."""

    def __init__(self, leaf):
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(leaf.certificate, leaf.key)
        self.listener = socket.create_server(("127.0.0.1", 0))
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
        # What a refused client does to us is no business of the app.
        with contextlib.suppress(OSError), connection:
            if connection.recv(1, socket.MSG_PEEK) == b"\x16":
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                while data := connection.recv(65536):
                    received += data
                    connection.sendall(data)


def exchange(port, own_tls=False, size=300_000):
    """Sends a payload to 127.0.0.1 and reads the echo, then ends both directions. Returns (outcome, payload): the
    outcome is `echoed`, `closed` (nothing came back) or what else went wrong."""
    payload = os.urandom(16).hex().encode() + os.urandom(size)
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            connection.settimeout(TIMEOUT)
            if own_tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                connection = context.wrap_socket(connection, server_hostname="app.example")
            return _echo(connection, payload), payload
    except TimeoutError:
        return "no answer in time", payload
    except (ConnectionError, ssl.SSLError):
        return "closed", payload


def _echo(connection, payload):
    def send():
        with contextlib.suppress(OSError):
            connection.sendall(payload)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    echo = bytearray()
    while len(echo) < len(payload):
        data = connection.recv(65536)
        if not data:
            return "closed" if not echo else f"closed after {len(echo)} of {len(payload)} bytes"
        echo += data
    sender.join()
    if echo != payload:
        return "echoed, but other bytes"
    if isinstance(connection, ssl.SSLSocket):
        return "echoed"
    connection.shutdown(socket.SHUT_WR)
    return "echoed, but bytes after it" if connection.recv(1) else "echoed"
