"""What passes through a namespace's end of the cable."""

import socket
import struct
import threading
import time

from rig.processes import RigError

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_RCVBUFFORCE = 33
# Of a payload, how many bytes are looked for at a time, and how far apart. They must fit into one packet.
_PIECE, _STEP = 64, 1000


class Wire:
    """Keeps every packet in both directions while the `with` block lasts."""

    def __init__(self, namespace):
        self.namespace = namespace
        self.packets = []
        self.ended = False

    def __enter__(self):
        with self.namespace:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        self.socket.bind((self.namespace.link, 0))
        self.socket.settimeout(0.1)
        self.thread = threading.Thread(target=self._keep, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        # What is under way still arrives.
        time.sleep(0.2)
        self.ended = True
        self.thread.join()
        _, dropped = struct.unpack("II", self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self.socket.close()
        if dropped:
            raise RigError(f"{dropped} packets were not seen")

    def _keep(self):
        while not self.ended:
            try:
                self.packets.append(self.socket.recv(1 << 17))
            except TimeoutError:
                pass

    def carried(self, payload):
        """How many pieces of the payload passed as they are, of how many."""
        seen = b"".join(self.packets)
        pieces = [payload[at:at + _PIECE] for at in range(0, len(payload) - _PIECE, _STEP)]
        return sum(piece in seen for piece in pieces), len(pieces)
