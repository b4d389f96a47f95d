"""What must pass and what must not when connections are captured, for each IP version."""

import time

from rig.certificates import CLIENT
from rig.processes import until

from . import checked, directory, holder, rules, servers
from . import topology as t
from .apps import ending, greeted, healthy, proxy_header, upload
from .expected import Expected, allowed, denied
from .namespaces import DIRECT, EVEN_LOOPBACK, FAMILIES, INBOUND, OUTBOUND, address, endpoint, loopback

class Cases(Expected):
    """The cases of one IP version."""

    def without_rules(self):
        """Control: without rules and sidecars the client reaches the app, so they cause every refusal below."""
        to = self.to(t.MTLS, t.STRICT)
        self.expect("No rules yet", "the client reaches the app", t.echo(self.topology.through(to)), "echoed",
                    app=t.STRICT)

    def both_sidecars(self):
        group = "Captured on both sides"
        for port, mode in ((t.STRICT, "STRICT"), (t.PERMISSIVE, "PERMISSIVE"), (t.WORKLOAD, "STRICT")):
            to = self.to(t.MTLS, port)
            self.expect(group, f"mTLS to port {port}, {mode}", t.echo(self.topology.through(to)), "echoed",
                        outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, mode)), app=port)
        to = self.to(t.MTLS, t.DISABLE)
        # The app echoes the hello, which is no TLS.
        self.expect(group, "mTLS to a DISABLE port, where no sidecar answers", lambda: (
            ending(self.topology.through(to))[0], b""), "reset",
            outbound=denied("protocol", mode="mtls", **self.both_ends(to)),
            inbound={"decision": "allow", **self.in_plain(to, "DISABLE", "-")}, app=t.DISABLE)
        to = self.to(t.WRONG, t.STRICT)
        self.expect(group, "mTLS, expecting another identity", t.echo(self.topology.through(to)), "closed",
                    outbound=denied("id_mismatch", mode="mtls", **self.both_ends(to)),
                    inbound={"decision": "deny", **self.both_ends(to)})
        to = self.to(t.PLAINTEXT, t.PERMISSIVE)
        self.expect(group, "a route in plaintext to PERMISSIVE", t.echo(self.topology.through(to)), "echoed",
                    outbound=allowed(**self.out_plain(to)), inbound=allowed(**self.in_plain(to, "PERMISSIVE")),
                    app=t.PERMISSIVE)
        to = self.to(t.PLAINTEXT, t.STRICT)
        self.expect(group, "a route in plaintext to STRICT", t.echo(self.topology.through(to)), "closed",
                    outbound={"decision": "allow", **self.out_plain(to)},
                    inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))
        to = self.to(t.UNKNOWN, t.PERMISSIVE)
        self.expect(group, "no route, otherwise: plaintext", t.echo(self.topology.through(to)), "echoed",
                    outbound=allowed(**self.out_plain(to)), inbound=allowed(**self.in_plain(to, "PERMISSIVE")),
                    app=t.PERMISSIVE)
        to = self.to(t.CONFLICT, t.PERMISSIVE)
        self.expect(group, "two routes with different modes", lambda: ending(self.topology.through(to)), "reset",
                    outbound=denied("route_conflict", **self.both_ends(to)))
        to = self.to(t.CONFLICT, t.STRICT)
        self.expect(group, "a port that only one of the two names", t.echo(self.topology.through(to)), "echoed",
                    outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "STRICT")), app=t.STRICT)

    def inbound_only(self):
        group = "A client without a sidecar"
        for case, to in (("STRICT by port", self.to(t.MTLS, t.STRICT)),
                         ("STRICT by workload", self.to(t.MTLS, t.WORKLOAD)),
                         ("STRICT, another address of the server", self.to(t.UNKNOWN, t.STRICT))):
            self.expect(group, case, t.echo(self.topology.without_sidecar(to)), "closed",
                        inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))
        for port, mode in ((t.PERMISSIVE, "PERMISSIVE"), (t.DISABLE, "DISABLE")):
            to = self.to(t.MTLS, port)
            transport = {"PERMISSIVE": "plaintext", "DISABLE": "-"}[mode]
            self.expect(group, mode, t.echo(self.topology.without_sidecar(to)), "echoed",
                        inbound=allowed(**self.in_plain(to, mode, transport)), app=port)

    def whole_bodies(self):
        group = "8 MiB, half-close, then 5 MiB back"
        to = self.to(t.MTLS, t.DIGEST_STRICT)
        self.expect(group, "mTLS", lambda: upload(self.topology.through(to)), "complete",
                    outbound=allowed(bytes_recv=8 << 20, bytes_sent=(5 << 20) + 32, **self.out_mtls(to)),
                    inbound=allowed(**self.in_mtls(to, "STRICT")), app=t.DIGEST_STRICT)
        for port, mode, transport in ((t.DIGEST_PERMISSIVE, "PERMISSIVE", "plaintext"),
                                      (t.DIGEST_DISABLE, "DISABLE", "-")):
            to = self.to(t.UNKNOWN, port)
            self.expect(group, f"plaintext through both sidecars, {mode}", lambda: upload(
                self.topology.through(to)), "complete",
                outbound=allowed(**self.out_plain(to)), inbound=allowed(**self.in_plain(to, mode, transport)), app=port)
            self.expect(group, f"plaintext from a client without a sidecar, {mode}", lambda: upload(
                self.topology.without_sidecar(to)), "complete",
                inbound=allowed(**self.in_plain(to, mode, transport)), app=port)

    def server_first(self):
        group = "The server speaks first"
        to = self.to(t.MTLS, t.GREETING_STRICT)
        self.expect(group, "mTLS, STRICT", lambda: greeted(self.topology.through(to)), "greeted",
                    outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "STRICT")),
                    app=t.GREETING_STRICT)
        to = self.to(t.MTLS, t.MYSQL)
        self.expect(group, "no sidecar, PERMISSIVE, port 3306", lambda: greeted(self.topology.without_sidecar(to)),
                    "greeted", inbound=allowed(mode="PERMISSIVE", **self.both_ends(to)), app=t.MYSQL)
        to = self.to(t.UNKNOWN, t.GREETING_DISABLE)
        self.expect(group, "plaintext through both sidecars, DISABLE", lambda: greeted(self.topology.through(to)),
                    "greeted", outbound=allowed(**self.out_plain(to)),
                    inbound=allowed(**self.in_plain(to, "DISABLE", "-")), app=t.GREETING_DISABLE)

    def proxy_protocol(self):
        """The app learns the client's address and the original destination, not the sidecar's."""
        group = "PROXY protocol"
        to = self.to(t.MTLS, t.PROXY_PROTOCOL)
        self.expect(group, "mTLS", lambda: proxy_header(self.topology.through(to)),
                    f"{self.own} {to[0]} {t.PROXY_PROTOCOL} {CLIENT}",
                    outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "PERMISSIVE")),
                    app=t.PROXY_PROTOCOL)
        self.expect(group, "no sidecar, PERMISSIVE", lambda: proxy_header(self.topology.without_sidecar(to)),
                    f"{self.own} {to[0]} {t.PROXY_PROTOCOL} -", inbound=allowed(**self.in_plain(to, "PERMISSIVE")),
                    app=t.PROXY_PROTOCOL)

    def unreachable_apps(self):
        group = "Where the app listens"
        to = self.to(t.MTLS, t.DOWN_STRICT)
        self.expect(group, "down, mTLS", lambda: ending(self.topology.through(to)), "reset",
                    outbound={"decision": "allow", "reason": "reset", **self.out_mtls(to)},
                    inbound=denied("app_unreachable", **self.in_mtls(to, "STRICT")))
        to = self.to(t.MTLS, t.DOWN_PERMISSIVE)
        self.expect(group, "down, no sidecar, PERMISSIVE", lambda: ending(self.topology.without_sidecar(to)), "reset",
                    inbound=denied("app_unreachable", **self.in_plain(to, "PERMISSIVE")))
        to = self.to(t.MTLS, t.MAPPED)
        self.expect(group, "on loopback only, in inbound.apps", t.echo(self.topology.through(to)), "echoed",
                    outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "STRICT")), app=t.MAPPED)
        to = self.to(t.MTLS, t.UNMAPPED)
        self.expect(group, "on loopback only, not in inbound.apps", lambda: ending(
            self.topology.through(to)), "reset",
                    outbound={"decision": "allow", "reason": "reset", **self.out_mtls(to)},
                    inbound=denied("app_unreachable", **self.in_mtls(to, "STRICT")))

    def own_ports(self):
        """A connection to a port of the proxy itself is refused: it is not forwarded and does not loop."""
        group = "Ports of the proxy itself"
        for port in (INBOUND, OUTBOUND, t.ADMIN):
            to = self.to(t.MTLS, port)
            self.expect(group, f"redirected, to the server's {port}", lambda: self.refused(
                self.topology.without_sidecar(to)), "refused", inbound=denied("loop", **self.both_ends(to)))
        to = self.to(t.MTLS, t.HEALTH)
        self.expect(group, "not redirected, to the server's health", lambda: (
            healthy(self.topology.without_sidecar(to)), b""), "200 OK")
        for port in (INBOUND, OUTBOUND, t.ADMIN, t.HEALTH):
            # The sidecar listens there itself: it would connect to itself, and that connection is not redirected again.
            to = (loopback(self.family), port)
            self.expect(group, f"redirected, to {endpoint(*to)}", lambda: self.refused(
                self.topology.through(to, EVEN_LOOPBACK)), "refused",
                outbound=denied("loop", **{"dst.addr": endpoint(*to), "port": port}))
        for port in (INBOUND, OUTBOUND):
            for host, mark in ((self.own, DIRECT), (self.own, 0), (loopback(self.family), 0)):
                self.expect(group, f"not redirected, to {endpoint(host, port)}", lambda: self.refused(
                    self.topology.through((host, port), mark)), "refused",
                    outbound=denied("loop", **{"dst.addr": endpoint(host, port), "port": port}))
        self.expect("Ports of the proxy itself", "not redirected, to the server's own 15006", lambda: self.refused(
            lambda: self.topology.server.connect(address(self.family, t.MTLS), INBOUND, DIRECT)), "refused",
            inbound=denied("loop", port=INBOUND))
        # A neighbour routes packets for another host to the server. Without the sidecar the kernel would drop them.
        there = {"IPv4": "198.51.100.9", "IPv6": "2001:db8:ffff::9"}[self.family]
        self.topology.client.route(there, self.to(t.MTLS, 0)[0])
        to = (there, t.PERMISSIVE)
        self.expect("No forwarding to other destinations", "routed to the server, for another address",
                    lambda: self.refused(self.topology.without_sidecar(to)), "refused",
                    inbound=denied("foreign_destination", **self.both_ends(to)))
        if self.family == "IPv4":
            # The neighbour routes even loopback to the server: a service that listens on loopback must not be reachable.
            with self.topology.client.loopback_through(self.to(t.MTLS, 0)[0]):
                to = ("127.0.0.1", t.UNMAPPED)
                self.expect("No forwarding to other destinations", "routed to the server, for its loopback",
                            lambda: self.refused(self.topology.through(to, DIRECT, self.own)), "refused",
                            inbound=denied("foreign_destination", **self.both_ends(to)))

    @staticmethod
    def refused(connect):
        """A FIN counts as refused, as does a reset."""
        seen, payload = ending(connect)
        return "refused" if seen in ("reset", "closed") else seen, payload

    def many_loops(self):
        """A proxy that connected to itself would loop until descriptors or memory ran out."""
        group, attempts = f"Ports of the proxy itself, {self.family}", 50
        sidecar = self.topology.outbound
        before, cpu, files = len(sidecar.records()), sidecar.cpu_seconds(), sidecar.open_files()
        for number in range(attempts):
            to = (self.own, (OUTBOUND, INBOUND)[number % 2])
            self.refused(self.topology.through(to, (0, DIRECT)[number // 2 % 2]))
        until(lambda: len(sidecar.records()) >= before + attempts, 5)
        time.sleep(0.5)
        lines, spent = len(sidecar.records()) - before, sidecar.cpu_seconds() - cpu
        report = self.topology.report
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
        """A port scan must not create a metric label for each port."""
        sidecar, before = self.topology.inbound, len(self.topology.inbound.records())
        ports = range(40000, 40100)
        for port in ports:
            ending(self.topology.without_sidecar(self.to(t.MTLS, port)))
        until(lambda: len(sidecar.records()) >= before + len(ports), 5)
        expected = set(map(str, ports))
        logged_ports = {str(line["port"]) for line in sidecar.records()[before:]}
        labels = sidecar.metric_ports()
        bounded = {"other", str(t.STRICT)} <= labels and not labels & expected
        group, report = f"{len(ports)} unknown ports, {self.family}", self.topology.report
        report.add(group, "access lines", "name every port",
                   None if logged_ports == expected else f"{len(logged_ports)} ports: {sorted(logged_ports)[:3]}")
        report.add(group, "metrics", "name known ports, and other",
                   None if bounded else f"{len(labels)} ports: {sorted(labels)[:9]}")

    def names(self):
        """A name is resolved again before an address is called unknown."""
        group, topology = "A route by name", self.topology

        def mtls(case, host):
            to = self.to(host, t.STRICT)
            self.expect(group, case, t.echo(topology.through(to)), "echoed",
                        outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "STRICT")),
                        app=t.STRICT)

        def plaintext(case, host):
            to = self.to(host, t.STRICT)
            self.expect(group, case, t.echo(topology.through(to)), "closed",
                        outbound={"decision": "allow", **self.out_plain(to)},
                        inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))

        def refused(case, host):
            to = self.to(host, t.STRICT)
            self.expect(group, case, lambda: ending(topology.through(to)), "reset",
                        outbound=denied("name_unresolved", **{"dst.addr": endpoint(*to), "port": to[1]}))

        mtls("its address", t.BY_NAME)
        plaintext("an address that is not the name's", t.UNKNOWN)
        topology.client.write_hosts({t.NAME: [t.MOVED]})
        # At once: an unknown address waits for the name to be resolved again.
        mtls("its new address", t.MOVED)
        mtls("its old address, for a while", t.BY_NAME)
        topology.client.write_hosts({})
        # Long enough for the cached answer that this address is unknown to expire.
        time.sleep(1.1)
        refused("no answer about the name: any other address", t.UNKNOWN)
        mtls("no answer about the name: the last address it had", t.MOVED)
        topology.client.write_hosts({t.NAME: [t.BY_NAME]})
        time.sleep(1.1)
        plaintext("the name is back: another address", t.UNKNOWN)

    def live_policy(self):
        group, topology = "The policy file changes", self.topology
        to = self.to(t.MTLS, t.STRICT)

        def change(text, mode):
            topology.change_policy(text, t.STRICT, mode)

        def refused(case):
            self.expect(group, case, t.echo(topology.without_sidecar(to)), "closed",
                        inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))

        def passes(case, mode, transport):
            self.expect(group, case, t.echo(topology.without_sidecar(to)), "echoed",
                        inbound=allowed(**self.in_plain(to, mode, transport)), app=t.STRICT)

        refused("STRICT at first")
        try:
            change(t.policy(p8001="PERMISSIVE"), "PERMISSIVE")
            passes("to PERMISSIVE", "PERMISSIVE", "plaintext")
            change(t.policy(p8001="DISABLE"), "DISABLE")
            passes("to DISABLE", "DISABLE", "-")
        finally:
            change(t.policy(), "STRICT")
        refused("and back")

    def refuse_otherwise(self):
        group = "Listeners on 0.0.0.0, otherwise: refuse"
        to = self.to(t.MTLS, t.STRICT)
        if self.family == "IPv4":
            self.expect(group, "mTLS", t.echo(self.topology.through(to)), "echoed", 
                        outbound=allowed(**self.out_mtls(to)), inbound=allowed(**self.in_mtls(to, "STRICT")),
                        app=t.STRICT)
            self.expect(group, "no sidecar, STRICT", t.echo(self.topology.without_sidecar(to)), "closed",
                        inbound=denied("plaintext_in_strict", **self.in_plain(to, "STRICT")))
            to = self.to(t.UNKNOWN, t.PERMISSIVE)
            self.expect(group, "no route", lambda: ending(self.topology.through(to)), "reset",
                        outbound=denied("no_route", **self.both_ends(to)))
        else:
            # No sidecar listens, and the rules do not let the connection bypass it.
            self.expect(group, "redirected to a port without a listener", lambda: ending(
                self.topology.through(to)), "refused")
            self.expect(group, "no sidecar, redirected to a port without a listener", lambda: ending(
                self.topology.without_sidecar(to)), "refused")

    def no_sidecar(self):
        """The rules stay when the sidecar exits: connections fail closed in both directions."""
        for port in (t.STRICT, t.PERMISSIVE, t.DISABLE):
            to = self.to(t.MTLS, port)
            self.expect("The sidecars are gone", f"captured on the client's side, to port {port}", lambda: ending(
                self.topology.through(to)), "refused")
            self.expect("The sidecars are gone", f"captured on the server's side, to port {port}", lambda: ending(
                self.topology.without_sidecar(to)), "refused")


def run(topology):
    families = [Cases(topology, family) for family in FAMILIES]

    def each(name):
        for cases in families:
            getattr(cases, name)()

    topology.start_apps()
    each("without_rules")
    rules.run(topology)
    holder.run(topology)
    checked.configuration(topology)
    for namespace in (topology.client, topology.server):
        namespace.redirect(topology.binary)
    topology.start_sidecars("dual")
    checked.sidecars(topology, "before the first connection", "unchecked", "nothing was redirected since it started")
    for name in ("both_sidecars", "inbound_only", "whole_bodies", "server_first", "proxy_protocol", "unreachable_apps",
                 "own_ports", "many_loops", "scanned", "names", "live_policy"):
        each(name)
    checked.sidecars(topology, "after connections", "passed", "connection was redirected")
    servers.run_cases(topology)
    topology.stop_sidecars("Listeners on [::]")
    directory.run(topology)
    topology.start_sidecars("v4", listen="0.0.0.0", otherwise="refuse")
    each("refuse_otherwise")
    topology.stop_sidecars("Listeners on 0.0.0.0")
    each("no_sidecar")
