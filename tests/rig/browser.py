"""A browser driven over WebDriver (W3C) and, where that does not go, over Chromium's own protocol."""

import base64
import json
import urllib.error
import urllib.request

from .processes import RigError, free_port

PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
# Chromium refuses its sandbox to root, and /dev/shm is small in containers. It loads only what the test serves.
_ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
              "--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb"]


class Browser:
    """One headless Chromium with one tab."""

    def __init__(self, processes):
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        process = processes.start("chromedriver", ["chromedriver", f"--port={port}"])
        processes.wait_until_ready(process, f"{self.base}/status")
        options = {"browserName": "chrome", "goog:chromeOptions": {"args": _ARGUMENTS},
                   "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self.base += f"/session/{session['sessionId']}"

    def quit(self):
        self._call("DELETE", "")

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RigError(f"the browser refuses {method} {path}: {error.read().decode()[:600]}") from error

    def open(self, url):
        self._call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The value that the body of a function returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def command(self, name, **parameters):
        """A command of the Chrome DevTools Protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def press(self, key):
        """A key, as WebDriver writes it."""
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def element(self, selector):
        return self._call("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]

    def log(self, kind):
        """What was logged since it was asked last: `browser` has messages of the page, `performance` events of the protocol."""
        return self._call("POST", "/se/log", {"type": kind})

    def screen(self, width, height, dark=False):
        """The size of the screen and its colour scheme."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = "dark" if dark else "light"
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, whole=False):
        """A PNG: what is on the screen, or the whole page."""
        picture = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(picture["data"])

    def requests(self):
        """Every URL that was asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
