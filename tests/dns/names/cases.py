"""What is asked of the server, and what must come back."""

import re
import time

from rig.dnsmasq import Dnsmasq
from rig.processes import free_port

from .client import Client, Missed
from .servers import BadServer

# Of every name in the server's file, in seconds.
TTL = 3
# More addresses than fit into one datagram of 512 bytes.
MANY = [f"10.0.9.{last}" for last in range(1, 61)]


def run(binary, folder, processes, report):
    bad = BadServer()
    server = Dnsmasq(folder, processes, free_port(), "shop.test", [
        f"--server=/bad.test/127.0.0.1#{bad.port}", "--txt-record=text.shop.test,no address",
        "--cname=alias.shop.test,cart.shop.test"])
    server.write("10.0.0.1 cart.shop.test", "fd00::1 cart.shop.test", "fd00::2 six.shop.test",
                 *(f"{address} many.shop.test" for address in MANY))
    server.start(TTL)
    client = Client(binary, processes, ["cart.shop.test", "gone.shop.test"], [server.address], ["shop.test"])

    def check(group, case, expected, test):
        try:
            problem = test()
        except Missed as missed:
            problem = str(missed)
        report.add(group, case, expected, problem)

    def answers(command, expected):
        def test():
            seen = client.ask(command)
            return None if re.fullmatch(expected, seen) else seen
        return test

    group = "answers"
    check(group, "A and AAAA together", "both", answers("lookup cart.shop.test.", rf"answer {TTL} s 10\.0\.0\.1 fd00::1"))
    check(group, "an alias", "addresses of its target", answers("lookup alias.shop.test.", r"answer \d s 10\.0\.0\.1 fd00::1"))
    check(group, "another case", "the same", answers("lookup CART.Shop.TEST", rf"answer {TTL} s 10\.0\.0\.1 fd00::1"))
    check(group, "NODATA for A", "AAAA only", answers("lookup six.shop.test", rf"answer {TTL} s fd00::2"))
    check(group, "NODATA for both", "none, no error", answers("lookup text.shop.test", r"answer \d+ s"))
    check(group, "NXDOMAIN", "none, no error", answers("lookup none.shop.test", r"answer \d+ s"))
    check(group, "truncated over UDP", "60 addresses over TCP",
          answers("lookup many.shop.test", rf"answer {TTL} s " + " ".join(map(re.escape, sorted_addresses(MANY)))))
    check(group, "search domain", "cart.shop.test", answers("lookup cart", rf"answer {TTL} s 10\.0\.0\.1 fd00::1"))
    check(group, "a trailing dot", "no search domain", answers("lookup cart.", r"error .* answered: .*|answer \d+ s"))
    check(group, "SERVFAIL", "an error", answers("lookup servfail.bad.test", r"error .*:\d+ answered: .*"))
    check(group, "A, but SERVFAIL for AAAA", "used, and marked",
          answers("lookup half.bad.test", r"answer 60 s 10\.0\.7\.1 incomplete: .* answered: .*"))
    check(group, "an answer after a second", "waited for", answers("lookup slow.bad.test", r"answer \d+ s 10\.0\.8\.1"))
    check(group, "no answer", "an error", answers("lookup never.bad.test", r"error no answer within 2s"))

    group = "names kept up to date"

    def ttl():
        before = server.queries("cart.shop.test")
        client.wait("cart.shop.test known 10.0.0.1 fd00::1")
        # The next look-up of the name; from then on the old answer is valid for its TTL.
        end = time.monotonic() + 2 * TTL + 2
        while server.queries("cart.shop.test") == before and time.monotonic() < end:
            time.sleep(0.01)
        asked = time.monotonic()
        server.write("10.0.0.2 cart.shop.test")
        seen = client.wait("cart.shop.test known 10.0.0.2") - asked
        return None if seen > TTL - 0.5 else f"after {seen:.1f} s"

    def address_is_matched():
        seen = client.ask("unknown 10.0.0.1")
        return None if seen == "owners cart.shop.test" else seen

    def nxdomain():
        client.wait("gone.shop.test known")
        after = client.count()
        server.write("10.0.0.3 gone.shop.test")
        client.wait("cart.shop.test known", after=after)
        return None

    def unknown():
        server.write("10.0.0.4 cart.shop.test", "10.0.0.3 gone.shop.test")
        seen = client.ask("unknown 10.0.0.4")
        return None if seen == "owners cart.shop.test" else seen

    def dies():
        after = client.count()
        server.kill()
        client.wait("cart.shop.test failed 10.0.0.4", after=after)
        return address_is_matched()

    def comes_back():
        after = client.count()
        server.write("10.0.0.5 cart.shop.test")
        server.start(TTL)
        client.wait("cart.shop.test known 10.0.0.5", after=after)
        return None

    check(group, "a changed record", "seen after its TTL, not before", ttl)
    check(group, "a former address", "still matched", address_is_matched)
    check(group, "NXDOMAIN of a known name", "no address, not failed", nxdomain)
    check(group, "an unknown address", "looked up at once", unknown)
    check(group, "the server dies", "addresses stay, failed", dies)
    check(group, "the server comes back", "new address, not failed", comes_back)

    group = "more servers, more threads"
    dead = f"127.0.0.1:{free_port()}"
    silent = f"127.0.0.1:{bad.port}"
    for what, first in (("refuses", dead), ("is silent", silent)):
        def second():
            other = Client(binary, processes, [], [first, server.address])
            seen = other.ask("lookup cart.shop.test")
            return None if seen == f"answer {TTL} s 10.0.0.5" else seen
        check(group, f"the first server {what}", "the second answers", second)

    def busy():
        if client.ask("busy 3000") != "busy":
            return "not busy"
        began = time.monotonic()
        seen = client.ask("lookup cart.shop.test")
        with client.arrived:
            idle = any(text == "idle" for _, text in client.lines)
        if idle:
            return f"answered after {time.monotonic() - began:.1f} s, behind the busy thread"
        return None if seen == f"answer {TTL} s 10.0.0.5" else seen

    check(group, "another thread is busy for 3 s", "answered meanwhile", busy)


def sorted_addresses(addresses):
    return sorted(addresses, key=lambda address: [int(part) for part in address.split(".")])
