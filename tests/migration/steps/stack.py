"""Five services of somebody's own, and a job that everybody forgot."""

import threading
import time
from contextlib import suppress

from engine.docker import APPS, IMAGE, get

PROJECT = "migration"
WEB = "http://localhost:8095/"
SHOP, BILLING = ("web", "cart", "orders"), ("pay", "db")
# Who calls whom: one request to `web` goes through all five.
_CHAIN = ("web", "cart", "orders", "pay", "db")


def _service(name, calls, ports=""):
    call = f', --calls, "http://{calls}:8080/"' if calls else ""
    return f"""\
  {name}:
    image: {IMAGE}
    command: [demo, app, --listen, "[::]:8080", --name, {name}{call}]
    user: "1000:1000"
    healthcheck: {{disable: true}}
    restart: unless-stopped
{ports}"""


def compose(every):
    """The file before there is a mesh. `cron-report` calls `pay` every so many seconds."""
    text = 'version: "3.7"\nservices:\n'
    for name, calls in zip(_CHAIN, (*_CHAIN[1:], None)):
        text += _service(name, calls, '    ports: ["8095:8080"]\n' if name == "web" else "")
    call = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 pay 8080"
    return text + f"""\
  cron-report:
    image: {APPS}
    command: [sh, -c, "while :; do {call}; sleep {every}; done"]
    user: "1000:1000"
    restart: unless-stopped
"""


class Customers:
    """Call `web` all the time, from outside; what they are answered is remembered."""

    def __init__(self):
        self.answers, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self._call, daemon=True)
        self.thread.start()

    def _call(self):
        while not self.ended.is_set():
            with suppress(OSError):
                status, body = get(WEB, 5)
                self.answers.append((time.monotonic(), status == 200 and "hello from db" in body, body))
            time.sleep(0.25)

    def served_since(self, moment):
        """How many were answered, and what went wrong."""
        answers = [(good, body) for at, good, body in self.answers if at >= moment]
        return sum(good for good, _ in answers), [body for good, body in answers if not good]

    def end(self):
        self.ended.set()
