"""What must pass and what must not when connections are captured, for each IP version."""

import time

from rig.certificates import CLIENT, SERVER
from rig.processes import until

from . import rules, servers
from . import world as w
from .apps import ending, greeted, healthy, told, upload
from .namespaces import DIRECT, EVEN_LOOPBACK, FAMILIES, INBOUND, OUTBOUND, address, endpoint, loopback

POLICY = "shop/modes"


def logged(decision, reason, **fields):
    return {"decision": decision, "reason": reason, **fields}


def allowed(**fields):
    return logged("allow", "-", **fields)


def denied(reason, **fields):
    return logged("deny", reason, **fields)


def comes_from(host):
    return lambda seen: bool(seen) and seen.rsplit(":", 1)[0].strip("[]") == host


class Cases:
    """The cases of one IP version."""

    def __init__(self, world, family):
        self.world = world
        self.family = family
        self.own = address(family, 1)

    def expect(self, group, *arguments, **options):
        self.world.expect(f"{group}, {self.family}", *arguments, **options)

    def to(self, host, port):
        return address(self.family, host), port

    # What the two sides must log of a connection to `to`.

    def out_mtls(self, to):
        return {"mode": "mtls", "transport": "mtls", "src.identity": CLIENT, "dst.identity": SERVER,
                **self.both_ends(to)}

    def out_plain(self, to):
        return {"mode": "plaintext", "transport": "plaintext", "src.identity": None, "dst.identity": None,
                **self.both_ends(to)}

    def in_mtls(self, to, mode):
        return {"mode": mode, "transport": "mtls", "src.identity": CLIENT, "dst.identity": SERVER, "policy": POLICY,
                **self.both_ends(to)}

    def in_plain(self, to, mode, transport="plaintext"):
        return {"mode": mode, "transport": transport, "src.identity": None, "policy": POLICY, **self.both_ends(to)}

    def both_ends(self, to):
        return {"src.addr": comes_from(self.own), "dst.addr": endpoint(*to), "port": to[1]}

    # The groups.

    def without_rules(self):
        """Proves that it is the rules and the sidecars that keep anybody from anything below."""
        to = self.to(w.MTLS, w.STRICT)
        self.expect("No rules yet", "the client reaches the app", w.echo(self.world.through(to)), "echoed",
                    app=w.STRICT)

    def both_sidecars(self):
        group = "Captured on both sides"
        for port, mode in ((w.STRICT, "STRICT"), (w.PERMISSIVE, "PERMISSIVE"), (w.WORKLOAD, "STRICT")):
            to = self.to(w.MTLS, port)
            self.expect(group, f"mTLS to port {port}, {mode}", w.echo(self.world.through(to)), "echoed",
                        outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, mode)), app=port)
        to = self.to(w.MTLS, w.DISABLE)
        # The app echoes the hello, which is no TLS.
        self.expect(group, "mTLS to a DISABLE port, where no sidecar answers", lambda: (
            ending(self.world.through(to))[0], b""), "reset",
            outbound=denied("protocol", mode="mtls", **self.both_ends(to)),
            inbound={"decision": "allow", **self.in_plain(to, "DISABLE", "-")}, app=w.DISABLE)
        to = self.to(w.WRONG, w.STRICT)
        self.expect(group, "mTLS, expecting another identity", w.echo(self.world.through(to)), "closed",
                    outbound=denied("id_mismatch", mode="mtls", **self.both_ends(to)),
                    inbound={"decision": "deny", **self.both_ends(to)})
        to = self.to(w.PLAINTEXT, w.PERMISSIVE)
        self.expect(group, "a route in plaintext to PERMISSIVE", w.echo(self.world.through(to)), "echoed",
                    outbound=allowed(**self.out_plain(to)), inbound=allowed(**self.in_plain(to, "PERMISSIVE")),
                    app=w.PERMISSIVE)
        to = self.to(w.PLAINTEXT, w.STRICT)
        self.expect(group, "a route in plaintext to STRICT", w.echo(self.world.through(to)), "closed",
                    outbound={"decision": "allow", **self.out_plain(to)},
                    inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))
        to = self.to(w.UNKNOWN, w.PERMISSIVE)
        self.expect(group, "no route, otherwise: plaintext", w.echo(self.world.through(to)), "echoed",
                    outbound=allowed(**self.out_plain(to)), inbound=allowed(**self.in_plain(to, "PERMISSIVE")),
                    app=w.PERMISSIVE)
        to = self.to(w.CONFLICT, w.PERMISSIVE)
        self.expect(group, "two routes with different modes", lambda: ending(self.world.through(to)), "reset",
                    outbound=denied("route_conflict", **self.both_ends(to)))
        to = self.to(w.CONFLICT, w.STRICT)
        self.expect(group, "a port that only one of the two names", w.echo(self.world.through(to)), "echoed",
                    outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "STRICT")), app=w.STRICT)

    def inbound_only(self):
        group = "A client without a sidecar"
        for case, to in (("STRICT by port", self.to(w.MTLS, w.STRICT)),
                         ("STRICT by workload", self.to(w.MTLS, w.WORKLOAD)),
                         ("STRICT, another address of the server", self.to(w.UNKNOWN, w.STRICT))):
            self.expect(group, case, w.echo(self.world.without_sidecar(to)), "closed",
                        inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))
        for port, mode in ((w.PERMISSIVE, "PERMISSIVE"), (w.DISABLE, "DISABLE")):
            to = self.to(w.MTLS, port)
            transport = {"PERMISSIVE": "plaintext", "DISABLE": "-"}[mode]
            self.expect(group, mode, w.echo(self.world.without_sidecar(to)), "echoed",
                        inbound=allowed(**self.in_plain(to, mode, transport)), app=port)

    def whole_bodies(self):
        group = "8 MiB, half-close, then 5 MiB back"
        to = self.to(w.MTLS, w.DIGEST_STRICT)
        self.expect(group, "mTLS", lambda: upload(self.world.through(to)), "complete",
                    outbound=allowed(bytes_recv=8 << 20, bytes_sent=(5 << 20) + 32, **self.out_mtls(to)),
                    inbound=allowed(**self.in_mtls(to, "STRICT")), app=w.DIGEST_STRICT)
        for port, mode, transport in ((w.DIGEST_PERMISSIVE, "PERMISSIVE", "plaintext"),
                                      (w.DIGEST_DISABLE, "DISABLE", "-")):
            to = self.to(w.UNKNOWN, port)
            self.expect(group, f"plaintext through both sidecars, {mode}", lambda: upload(
                self.world.through(to)), "complete",
                outbound=allowed(**self.out_plain(to)), inbound=allowed(**self.in_plain(to, mode, transport)), app=port)
            self.expect(group, f"plaintext from a client without a sidecar, {mode}", lambda: upload(
                self.world.without_sidecar(to)), "complete",
                inbound=allowed(**self.in_plain(to, mode, transport)), app=port)

    def server_first(self):
        group = "The server speaks first"
        to = self.to(w.MTLS, w.GREETING_STRICT)
        self.expect(group, "mTLS, STRICT", lambda: greeted(self.world.through(to)), "greeted",
                    outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "STRICT")),
                    app=w.GREETING_STRICT)
        to = self.to(w.MTLS, w.MYSQL)
        self.expect(group, "no sidecar, PERMISSIVE, port 3306", lambda: greeted(self.world.without_sidecar(to)),
                    "greeted", inbound=allowed(mode="PERMISSIVE", **self.both_ends(to)), app=w.MYSQL)
        to = self.to(w.UNKNOWN, w.GREETING_DISABLE)
        self.expect(group, "plaintext through both sidecars, DISABLE", lambda: greeted(self.world.through(to)),
                    "greeted", outbound=allowed(**self.out_plain(to)),
                    inbound=allowed(**self.in_plain(to, "DISABLE", "-")), app=w.GREETING_DISABLE)

    def told_apps(self):
        """The app learns the client's address and the original destination, not the sidecar's."""
        group = "The app is told who its client is"
        to = self.to(w.MTLS, w.TOLD)
        self.expect(group, "mTLS", lambda: told(self.world.through(to)), f"{self.own} {to[0]} {w.TOLD} {CLIENT}",
                    outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "PERMISSIVE")),
                    app=w.TOLD)
        self.expect(group, "no sidecar, PERMISSIVE", lambda: told(self.world.without_sidecar(to)),
                    f"{self.own} {to[0]} {w.TOLD} -", inbound=allowed(**self.in_plain(to, "PERMISSIVE")), app=w.TOLD)

    def unreachable_apps(self):
        group = "Where the app listens"
        to = self.to(w.MTLS, w.DOWN_STRICT)
        self.expect(group, "down, mTLS", lambda: ending(self.world.through(to)), "reset",
                    outbound={"decision": "allow", "reason": "reset", **self.out_mtls(to)},
                    inbound=denied("app_unreachable", **self.in_mtls(to, "STRICT")))
        to = self.to(w.MTLS, w.DOWN_PERMISSIVE)
        self.expect(group, "down, no sidecar, PERMISSIVE", lambda: ending(self.world.without_sidecar(to)), "reset",
                    inbound=denied("app_unreachable", **self.in_plain(to, "PERMISSIVE")))
        to = self.to(w.MTLS, w.MAPPED)
        self.expect(group, "on loopback only, in inbound.apps", w.echo(self.world.through(to)), "echoed",
                    outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "STRICT")), app=w.MAPPED)
        to = self.to(w.MTLS, w.UNMAPPED)
        self.expect(group, "on loopback only, not in inbound.apps", lambda: ending(
            self.world.through(to)), "reset",
                    outbound={"decision": "allow", "reason": "reset", **self.out_mtls(to)},
                    inbound=denied("app_unreachable", **self.in_mtls(to, "STRICT")))

    def own_ports(self):
        """Whoever comes to a port of the proxy itself is not forwarded, and never goes round."""
        group = "Ports of the proxy itself"
        for port in (INBOUND, OUTBOUND, w.ADMIN):
            to = self.to(w.MTLS, port)
            self.expect(group, f"redirected, to the server's {port}", lambda: self.refused(
                self.world.without_sidecar(to)), "refused", inbound=denied("loop", **self.both_ends(to)))
        to = self.to(w.MTLS, w.HEALTH)
        self.expect(group, "not redirected, to the server's health", lambda: (
            healthy(self.world.without_sidecar(to)), b""), "200 OK")
        for port in (INBOUND, OUTBOUND, w.ADMIN, w.HEALTH):
            # The sidecar listens there itself, so it would reach itself, and be redirected no more.
            to = (loopback(self.family), port)
            self.expect(group, f"redirected, to {endpoint(*to)}", lambda: self.refused(
                self.world.through(to, EVEN_LOOPBACK)), "refused",
                outbound=denied("loop", **{"dst.addr": endpoint(*to), "port": port}))
        for port in (INBOUND, OUTBOUND):
            for host, mark in ((self.own, DIRECT), (self.own, 0), (loopback(self.family), 0)):
                self.expect(group, f"not redirected, to {endpoint(host, port)}", lambda: self.refused(
                    self.world.through((host, port), mark)), "refused",
                    outbound=denied("loop", **{"dst.addr": endpoint(host, port), "port": port}))
        self.expect("Ports of the proxy itself", "not redirected, to the server's own 15006", lambda: self.refused(
            lambda: self.world.server.connect(address(self.family, w.MTLS), INBOUND, DIRECT)), "refused",
            inbound=denied("loop", port=INBOUND))
        # A neighbour routes what is meant for others to the server. Without the sidecar the kernel would drop it.
        there = {"IPv4": "198.51.100.9", "IPv6": "2001:db8:ffff::9"}[self.family]
        self.world.client.route(there, self.to(w.MTLS, 0)[0])
        to = (there, w.PERMISSIVE)
        self.expect("No way through the sidecar to others", "routed to the server, for another address",
                    lambda: self.refused(self.world.without_sidecar(to)), "refused",
                    inbound=denied("foreign_destination", **self.both_ends(to)))
        if self.family == "IPv4":
            # He routes even loopback to the server: whoever listens there for the server alone must not be reached.
            with self.world.client.loopback_through(self.to(w.MTLS, 0)[0]):
                to = ("127.0.0.1", w.UNMAPPED)
                self.expect("No way through the sidecar to others", "routed to the server, for its loopback",
                            lambda: self.refused(self.world.through(to, DIRECT, self.own)), "refused",
                            inbound=denied("foreign_destination", **self.both_ends(to)))

    @staticmethod
    def refused(connect):
        """A FIN will do as well as a reset."""
        seen, payload = ending(connect)
        return "refused" if seen in ("reset", "closed") else seen, payload

    def many_loops(self):
        """A proxy that called itself would do so until something runs out."""
        group, attempts = f"Ports of the proxy itself, {self.family}", 50
        sidecar = self.world.outbound
        before, cpu, files = len(sidecar.records()), sidecar.cpu_seconds(), sidecar.open_files()
        for number in range(attempts):
            to = (self.own, (OUTBOUND, INBOUND)[number % 2])
            self.refused(self.world.through(to, (0, DIRECT)[number // 2 % 2]))
        until(lambda: len(sidecar.records()) >= before + attempts, 5)
        time.sleep(0.5)
        lines, spent = len(sidecar.records()) - before, sidecar.cpu_seconds() - cpu
        report = self.world.report
        report.add(group, f"{attempts} attempts", f"{attempts} lines",
                   None if lines == attempts else f"{lines} lines")
        report.add(group, "processor time for them", "less than 0.4 s", None if spent < 0.4 else f"{spent} s")
        quiet = sidecar.cpu_seconds()
        time.sleep(0.5)
        spent = sidecar.cpu_seconds() - quiet
        report.add(group, "processor time in half a second afterwards", "nearly none",
                   None if spent <= 0.05 else f"{spent} s")
        closed = until(lambda: sidecar.open_files() <= files, 3)
        report.add(group, "descriptors afterwards", "as before", None if closed else
                   f"{sidecar.open_files()} instead of {files}")

    def scanned(self):
        """Who dials every port must not fill the metrics with them."""
        sidecar, before = self.world.inbound, len(self.world.inbound.records())
        ports = range(40000, 40100)
        for port in ports:
            ending(self.world.without_sidecar(self.to(w.MTLS, port)))
        until(lambda: len(sidecar.records()) >= before + len(ports), 5)
        expected = set(map(str, ports))
        logged_ports = {str(line["port"]) for line in sidecar.records()[before:]}
        labels = sidecar.metric_ports()
        bounded = {"other", str(w.STRICT)} <= labels and not labels & expected
        group, report = f"{len(ports)} unknown ports, {self.family}", self.world.report
        report.add(group, "access lines", "name every port",
                   None if logged_ports == expected else f"{len(logged_ports)} ports: {sorted(logged_ports)[:3]}")
        report.add(group, "metrics", "name known ports, and other",
                   None if bounded else f"{len(labels)} ports: {sorted(labels)[:9]}")

    def names(self):
        """A name is resolved again before an address is called unknown."""
        group, world = "A route by name", self.world

        def mtls(case, host):
            to = self.to(host, w.STRICT)
            self.expect(group, case, w.echo(world.through(to)), "echoed",
                        outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "STRICT")),
                        app=w.STRICT)

        def plaintext(case, host):
            to = self.to(host, w.STRICT)
            self.expect(group, case, w.echo(world.through(to)), "closed",
                        outbound={"decision": "allow", **self.out_plain(to)},
                        inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))

        def refused(case, host):
            to = self.to(host, w.STRICT)
            self.expect(group, case, lambda: ending(world.through(to)), "reset",
                        outbound=denied("name_unresolved", **{"dst.addr": endpoint(*to), "port": to[1]}))

        mtls("its address", w.BY_NAME)
        plaintext("another address is none of it", w.UNKNOWN)
        world.client.write_hosts({w.NAME: [w.MOVED]})
        # At once: whoever is not known waits for a resolution of its own.
        mtls("its new address", w.MOVED)
        mtls("its old address, for a while", w.BY_NAME)
        world.client.write_hosts({})
        # Long enough for the answer about this address, that nobody knows it, to be old.
        time.sleep(1.1)
        refused("no answer about the name: any other address", w.UNKNOWN)
        mtls("no answer about the name: the last address it had", w.MOVED)
        world.client.write_hosts({w.NAME: [w.BY_NAME]})
        time.sleep(1.1)
        plaintext("the name is back: another address", w.UNKNOWN)

    def live_policy(self):
        group, world = "The policy file changes", self.world
        to = self.to(w.MTLS, w.STRICT)

        def change(text, mode):
            world.change_policy(text, w.STRICT, mode)

        def refused(case):
            self.expect(group, case, w.echo(world.without_sidecar(to)), "closed",
                        inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))

        def passes(case, mode, transport):
            self.expect(group, case, w.echo(world.without_sidecar(to)), "echoed",
                        inbound=allowed(**self.in_plain(to, mode, transport)), app=w.STRICT)

        refused("STRICT at first")
        try:
            change(w.policy(p8001="PERMISSIVE"), "PERMISSIVE")
            passes("to PERMISSIVE", "PERMISSIVE", "plaintext")
            change(w.policy(p8001="DISABLE"), "DISABLE")
            passes("to DISABLE", "DISABLE", "-")
        finally:
            change(w.policy(), "STRICT")
        refused("and back")

    def refuse_otherwise(self):
        group = "Listeners on 0.0.0.0, otherwise: refuse"
        to = self.to(w.MTLS, w.STRICT)
        if self.family == "IPv4":
            self.expect(group, "mTLS", w.echo(self.world.through(to)), "echoed", outbound=allowed(**self.out_mtls(to)),
                        inbound=allowed(**self.in_mtls(to, "STRICT")), app=w.STRICT)
            self.expect(group, "no sidecar, STRICT", w.echo(self.world.without_sidecar(to)), "closed",
                        inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))
            to = self.to(w.UNKNOWN, w.PERMISSIVE)
            self.expect(group, "no route", lambda: ending(self.world.through(to)), "reset",
                        outbound=denied("no_route", **self.both_ends(to)))
        else:
            # Nobody takes it, and the rules do not let it pass by.
            self.expect(group, "redirected to where nobody listens", lambda: ending(self.world.through(to)), "refused")
            self.expect(group, "no sidecar, redirected to where nobody listens", lambda: ending(
                self.world.without_sidecar(to)), "refused")

    def no_sidecar(self):
        """The rules stay when the sidecar dies: nothing gets out or in."""
        for port in (w.STRICT, w.PERMISSIVE, w.DISABLE):
            to = self.to(w.MTLS, port)
            self.expect("The sidecars are gone", f"captured on the client's side, to port {port}", lambda: ending(
                self.world.through(to)), "refused")
            self.expect("The sidecars are gone", f"captured on the server's side, to port {port}", lambda: ending(
                self.world.without_sidecar(to)), "refused")


def run(world):
    families = [Cases(world, family) for family in FAMILIES]

    def each(name):
        for cases in families:
            getattr(cases, name)()

    world.start_apps()
    each("without_rules")
    rules.run(world)
    for namespace in (world.client, world.server):
        namespace.redirect(world.binary)
    world.start_sidecars("dual")
    for name in ("both_sidecars", "inbound_only", "whole_bodies", "server_first", "told_apps", "unreachable_apps", "own_ports",
                 "many_loops", "scanned", "names", "live_policy"):
        each(name)
    servers.run_cases(world)
    _stop(world, "Listeners on [::]")
    world.start_sidecars("v4", listen="0.0.0.0", otherwise="refuse")
    each("refuse_otherwise")
    _stop(world, "Listeners on 0.0.0.0")
    world.outbound = world.inbound = None
    each("no_sidecar")


def _stop(world, group):
    for sidecar in (world.outbound, world.inbound):
        code = sidecar.stop()
        world.report.add(group, f"{sidecar.name} ends when asked", "exit code 0: no connection is left",
                         None if code == 0 else f"exit code {code}")
