"""A server that misbehaves on purpose."""

import socket
import struct
import threading
import time


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
