"""What the page must do in a real browser."""

import urllib.request

from rig.processes import until

from .scene import Scene
from .scripts import FIRST_SCREEN, LOW_CONTRAST, TOO_WIDE, UNNAMED
from rig.browser import Browser

MAX_BYTES = 60 * 1024
TAB, ENTER = "\ue004", "\ue007"
# (width, height): a desktop, a small notebook, a tablet, a phone.
SCREENS = [(1600, 1000), (1280, 800), (768, 1024), (400, 800)]


def run(binary, folder, processes, report, pictures=None):
    scene = Scene(binary, folder, processes)
    scene.start()
    process, url = scene.dashboard()
    browser = Browser(processes)
    page = Page(browser, url, report, pictures)
    try:
        page.load()
        page.screens()
        page.without_script()
        page.own_page(f"http://127.0.0.1:{scene.cart.admin}/")
        page.keyboard()
        page.live(scene)
        page.away(process)
    finally:
        scene.end()
        browser.quit()


class Page:
    def __init__(self, browser, url, report, pictures):
        self.browser, self.url, self.report, self.pictures = browser, url, report, pictures

    def check(self, group, case, expected, problem):
        self.report.add(group, case, expected, problem)

    def text(self, selector):
        """What is seen of it: the layout has its part in that."""
        return self.browser.run("const one = document.querySelector(arguments[0]); return one ? one.innerText : ''", selector)

    def picture(self, name, whole=False):
        if self.pictures:
            (self.pictures / f"{name}.png").write_bytes(self.browser.screenshot(whole))

    def load(self):
        group = "The page"
        with urllib.request.urlopen(self.url, timeout=5) as answer:
            size = len(answer.read())
        self.check(group, f"its size, {size} bytes", f"at most {MAX_BYTES}", None if size <= MAX_BYTES else "more")
        self.browser.screen(1280, 800)
        self.browser.requests()
        self.browser.open(self.url)
        live = until(lambda: self.text("#live") == "live", 10)
        self.check(group, "is connected", "says so", None if live else self.text("#live"))
        shows = until(lambda: self.text("h1").startswith("No: on"), 20)
        self.check(group, "the answer", "not all is mTLS", None if shows else self.text("h1"))
        foreign = [asked for asked in self.browser.requests() if not asked.startswith((self.url, "data:"))]
        self.check(group, "asks only its own host", "nothing else", str(foreign) if foreign else None)
        said = [entry["message"] for entry in self.browser.log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        # Browsers ask for an icon by themselves.
        said = [message for message in said if "favicon.ico" not in message]
        self.check(group, "errors, and what the content security policy stopped", "none", str(said) if said else None)
        unnamed = self.browser.run(UNNAMED)
        self.check(group, "names for who does not see it, order of headings", "complete", str(unnamed) if unnamed else None)

    def screens(self):
        for dark in (False, True):
            for width, height in SCREENS:
                group = f"{width} x {height}, {'dark' if dark else 'light'}"
                self.browser.screen(width, height, dark)
                seen = self.browser.run(FIRST_SCREEN)
                problem = None if len(seen) >= 2 and "plaintext" in " ".join(seen) else str(seen)
                self.check(group, "the answer and why, without scrolling", "seen", problem)
                wide = self.browser.run(TOO_WIDE)
                self.check(group, "wider than the screen", "nothing", str(wide) if wide else None)
                low = self.browser.run(LOW_CONTRAST)
                self.check(group, "text with a contrast below 4.5", "none", str(low) if low else None)
                self.picture(f"{width}-{'dark' if dark else 'light'}")
        self.browser.screen(1280, 800)

    def keyboard(self):
        group = "Keyboard"
        wanted = self.browser.run("return document.querySelectorAll('a[href], summary, button, input').length")
        self.browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
        reached, marked = set(), True
        for _ in range(wanted + 2):
            self.browser.press(TAB)
            place, outline = self.browser.run(
                "const one = document.activeElement; if (!one || one === document.body) return ['', ''];"
                "return [[...document.querySelectorAll('*')].indexOf(one) + '', getComputedStyle(one).outlineStyle]")
            if place:
                reached.add(place)
                marked = marked and outline not in ("", "none")
        enough = len(reached) >= wanted
        self.check(group, f"Tab reaches all of {wanted} links and controls", "all",
                   None if wanted and enough else f"{len(reached)}")
        self.check(group, "what has the focus", "is marked", None if marked else "not each")

    def without_script(self):
        group = "Without JavaScript"
        self.browser.command("Emulation.setScriptExecutionDisabled", value=True)
        self.browser.open(self.url)
        text = self.browser.command("Runtime.evaluate", expression="document.body.innerText")["result"].get("value", "")
        self.browser.command("Emulation.setScriptExecutionDisabled", value=False)
        missing = [word for word in ("No: on", "Clients without mTLS", "Certificates") if word not in text]
        self.check(group, "the page", "is complete", f"without {missing}" if missing else None)

    def own_page(self, url):
        group = "The page of one sidecar"
        self.browser.open(url)
        live = until(lambda: self.text("#live") == "live", 10)
        self.check(group, "is connected", "says so", None if live else self.text("#live"))
        self.check(group, "its name", "in the title", None if "cart" in self.browser.run("return document.title") else
                   self.browser.run("return document.title"))

    def live(self, scene):
        """STRICT comes into force while somebody looks."""
        group = "While it is looked at"
        self.browser.open(self.url)
        until(lambda: self.text("h1").startswith("No: on"), 20)
        self.browser.run("document.body.dataset.loaded = 'once'")
        scene.strict()
        changed = until(lambda: "STRICT" in self.text("main").split("What changed")[-1], 15)
        self.check(group, "a change of the policy", "is shown within 15 s", None if changed else self.text("main")[-300:])
        closed = until(lambda: self.text("h1").startswith("Yes:"), 10)
        self.check(group, "the answer then", "all is mTLS", None if closed else self.text("h1"))
        same = self.browser.run("return document.body.dataset.loaded") == "once"
        self.check(group, "the page", "is not loaded again", None if same else "it is")
        self.picture("after-strict")

    def away(self, process):
        group = "The server ends"
        process.terminate()
        said = until(lambda: self.text("#live") == "not connected", 15)
        self.check(group, "the page", "says so", None if said else self.text("#live"))
        still = "Certificates" in self.text("main")
        self.check(group, "what was there", "stays", None if still else "it is gone")
