"""Captured connections that the service directory decides: ServiceEntries in the client's policy folder, and no routes.

Each IP version has services of its own, so that the version of an endpoint is known."""

import itertools
import json
import threading
import time

from rig.app import exchange
from rig.certificates import CLIENT
from rig.dnsmasq import Dnsmasq
from rig.processes import RigError, until

from . import topology as t
from .apps import ending
from .expected import POLICY, Expected, allowed, denied
from .namespaces import EVEN_LOOPBACK, FAMILIES, address, endpoint
from .wire import Wire

# Virtual addresses. They are routed to the server, so a connection that bypassed the sidecar would be seen there.
_VIRTUAL = {"IPv4": ("203.0.113.", 24), "IPv6": ("2001:db8:1::", 64)}
CART, DNS_CART, WEB = 1, 2, 3
# Ports of services; the server's port of each is another.
TO_STRICT, TO_DISABLE, TO_PERMISSIVE, TO_OWN = 80, 81, 82, 83
SIDECAR = {"serviceAccount": "cart", "labels": {"app": "interop"}}
# Of DNS answers, in seconds.
TTL = 1


def virtual(family, host):
    return f"{_VIRTUAL[family][0]}{host}"


def _entry(name, host, ports, resolution="STATIC", location="MESH_INTERNAL", **spec):
    ports = [{"number": number, "name": f"p{number}", "protocol": "TCP", **({"targetPort": target} if target else {})}
             for number, target in ports.items()]
    entry = {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": name, "namespace": "shop"},
             "spec": {"hosts": [host], "location": location, "resolution": resolution, "ports": ports, **spec}}
    # JSON is YAML.
    return f"---\n{json.dumps(entry)}\n"


def documents():
    """The service directory."""
    text = ""
    for family in FAMILIES:
        v = family[-1]

        def endpoints(host, **fields):
            return [{"address": address(family, host), **fields}]

        text += _entry(f"cart-{v}", f"cart-{v}.test",
                       {TO_STRICT: t.STRICT, TO_DISABLE: t.DISABLE, TO_PERMISSIVE: t.PERMISSIVE},
                       addresses=[virtual(family, CART)], endpoints=endpoints(t.MTLS, **SIDECAR))
        text += _entry(f"declared-{v}", f"declared-{v}.test", {t.STRICT: None, TO_PERMISSIVE: t.PERMISSIVE},
                       endpoints=endpoints(t.DECLARED, **SIDECAR))
        text += _entry(f"bare-{v}", f"bare-{v}.test", {t.STRICT: None, t.PERMISSIVE: None}, endpoints=endpoints(t.PLAINTEXT))
        text += _entry(f"wrong-{v}", f"wrong-{v}.test", {t.STRICT: None},
                       endpoints=endpoints(t.WRONG, **{**SIDECAR, "serviceAccount": "other"}))
        text += _entry(f"external-{v}", f"external-{v}.test", {t.PERMISSIVE: None}, "NONE", "MESH_EXTERNAL",
                       addresses=[address(family, t.EXTERNAL)])
        text += _entry(f"dns-{v}", f"dns-{v}.test", {t.STRICT: None}, "DNS", addresses=[virtual(family, DNS_CART)],
                       endpoints=[{"address": f"dns-{v}.test", **SIDECAR}])
        text += _entry(f"web-{v}", f"web-{v}.test", {TO_OWN: t.OWN}, "DNS", addresses=[virtual(family, WEB)],
                       endpoints=[{"address": f"web-{v}.test", "serviceAccount": "web", "labels": {"app": "interop"}}])
    return text


class Names:
    """dnsmasq on the loopback of the client's namespace, which its resolv.conf names."""

    def __init__(self, topology):
        client = topology.client
        self.server = Dnsmasq(topology.folder, topology.processes, 53, "test", wrapper=["ip", "netns", "exec", client.name],
                              inside=client)
        self.hosts = {family: t.BY_NAME for family in FAMILIES}
        self._write()
        self.server.start(TTL)

    def move(self, family, host):
        """To this address, or to none."""
        self.hosts[family] = host
        self._write()

    def _write(self):
        names = [(f"dns-{family[-1]}.test", family, host) for family, host in self.hosts.items() if host]
        names += [(f"web-{family[-1]}.test", family, 1) for family in FAMILIES]
        self.server.write(*(f"{address(family, host)} {name}" for name, family, host in names))


class Directory(Expected):
    def __init__(self, topology, family, names):
        super().__init__(topology, family)
        self.names = names
        for host in (CART, DNS_CART, WEB):
            topology.client.route(virtual(family, host), address(family, t.MTLS))

    # What is expected of a connection to `dialled`, for which the endpoint `at` is taken.

    def mtls(self, group, case, dialled, at, mode="STRICT"):
        self.expect(group, case, t.echo(self.topology.through(dialled)), "echoed",
                    outbound=allowed(policy=POLICY, **self.out_mtls(at)), inbound=allowed(**self.in_mtls(at, mode)), app=at[1])

    def plaintext(self, group, case, dialled, at, mode="PERMISSIVE"):
        transport = {"PERMISSIVE": "plaintext", "DISABLE": "-"}[mode]
        self.expect(group, case, t.echo(self.topology.through(dialled)), "echoed",
                    outbound=allowed(**self.out_plain(at)), inbound=allowed(**self.in_plain(at, mode, transport)), app=at[1])

    def refused(self, group, case, reason, dialled):
        self.expect(group, case, lambda: ending(self.topology.through(dialled)), "reset",
                    outbound=denied(reason, **{"dst.addr": endpoint(*dialled), "port": dialled[1]}))

    def virtual(self, host, port):
        return virtual(self.family, host), port

    # The groups.

    def declared(self):
        group = "The service directory"
        cart, named = self.to(t.MTLS, t.STRICT), self.to(t.BY_NAME, t.STRICT)
        self.mtls(group, "virtual address, to STRICT", self.virtual(CART, TO_STRICT), cart)
        self.mtls(group, "virtual address, to PERMISSIVE", self.virtual(CART, TO_PERMISSIVE), self.to(t.MTLS, t.PERMISSIVE),
                  "PERMISSIVE")
        self.plaintext(group, "virtual address, to DISABLE", self.virtual(CART, TO_DISABLE), self.to(t.MTLS, t.DISABLE), "DISABLE")
        self.mtls(group, "endpoint, by the service's port", self.to(t.DECLARED, TO_PERMISSIVE),
                  self.to(t.DECLARED, t.PERMISSIVE), "PERMISSIVE")
        self.mtls(group, "endpoint, by its own port", self.to(t.DECLARED, t.PERMISSIVE), self.to(t.DECLARED, t.PERMISSIVE),
                  "PERMISSIVE")
        self.mtls(group, "DNS name, by its address", named, named)
        self.mtls(group, "DNS name, by the virtual address", self.virtual(DNS_CART, t.STRICT), named)
        bare = self.to(t.PLAINTEXT, t.PERMISSIVE)
        self.plaintext(group, "no serviceAccount: no sidecar", bare, bare)
        bare = self.to(t.PLAINTEXT, t.STRICT)
        self.expect(group, "no serviceAccount, but STRICT", t.echo(self.topology.through(bare)), "closed",
                    outbound={"decision": "allow", **self.out_plain(bare)},
                    inbound=denied("plaintext_in_strict", **self.in_plain(bare, "STRICT")))
        wrong = self.to(t.WRONG, t.STRICT)
        self.expect(group, "another serviceAccount", t.echo(self.topology.through(wrong)), "closed",
                    outbound=denied("id_mismatch", mode="mtls", **self.both_ends(wrong)),
                    inbound={"decision": "deny", **self.both_ends(wrong)})
        self.external(group)
        unknown = self.to(t.UNKNOWN, t.PERMISSIVE)
        for _ in range(2):
            self.plaintext(group, "not declared, ALLOW_ANY", unknown, unknown)
        self.warned(group, unknown)

    def warned(self, group, unknown):
        """Of what nobody has declared, once; of what is declared as plaintext, never."""
        warnings = [line for line in self.topology.outbound.events() if line.get("reason") == "undeclared_plaintext"]
        seen = [line["destination"] for line in warnings]
        ours = [destination for destination in seen if destination.startswith("[") == (self.family == "IPv6")]
        remedies = all("ServiceEntry" in line["remedy"] for line in warnings)
        self.topology.report.add(group, f"warnings of plaintext to neighbours, {self.family}", "the undeclared one, once, with a remedy",
                                 None if ours == [endpoint(*unknown)] and remedies else str(warnings))
        with self.topology.client:
            count = self.topology.outbound.metrics().get("portcullis_outbound_undeclared_plaintext_total")
        self.topology.report.add(group, f"metric of plaintext to neighbours, {self.family}", "each connection",
                                 None if count == 2 * len(seen) else f"{count} for {seen}")

    def external(self, group):
        external = self.to(t.EXTERNAL, t.PERMISSIVE)
        self.plaintext(group, "MESH_EXTERNAL", external, external)

    def own_service(self):
        """It must not leave the host, where its own sidecar could not authenticate it."""
        group = "A workload calls its own service"
        own = self.own, t.OWN
        for case, to, mark in (("by its virtual address", self.virtual(WEB, TO_OWN), 0),
                               ("by the address of its name, captured", own, EVEN_LOOPBACK)):
            self.expect(group, case, t.echo(self.topology.through(to, mark)), "echoed",
                        outbound=allowed(**self.out_plain(own)), app=t.OWN)
        self.expect(group, "by the address of its name, not captured", t.echo(self.topology.through(own)), "echoed", app=t.OWN)

    def moves(self):
        """The new address was never seen before. While it is found, nothing of the app may pass as it is."""
        group = f"A peer moves to a new address, {self.family}"
        old, new = self.to(t.BY_NAME, t.STRICT), self.to(t.MOVED, t.STRICT)
        report = self.topology.report
        with Wire(self.topology.client) as wire:
            payload = self.exchange(self.to(t.UNKNOWN, t.PERMISSIVE))
        seen, pieces = wire.carried(payload)
        report.add(group, "control: plaintext", "is seen on the wire", None if seen == pieces else f"{seen} of {pieces} pieces")
        with Wire(self.topology.client) as wire:
            self.names.move(self.family, t.MOVED)
            payloads, problems = self.at_once(new, 8)
            report.add(group, "8 connections at once to the new address", "echoed, mTLS", problems)
            self.mtls("A peer moves to a new address", "another one", new, new)
            self.mtls("A peer moves to a new address", "its old address: taken to the new one", old, new)
            # Nobody dials an unknown address now, so that only the TTL makes the sidecar ask again.
            self.names.move(self.family, t.BY_NAME)
            first = len(self.topology.outbound.records())
            found = until(lambda: self.dials(payloads) == endpoint(*old), 5)
            lines = self.topology.outbound.records()[first:]
            others = [line for line in lines if line.get("transport") != "mtls" or line["decision"] != "allow"]
            problem = None if found and not others else f"{len(lines)} connections, among them {others[:2]}"
            report.add(group, "it moves back: the virtual address, until it is found", "echoed, mTLS", problem)
        seen = sum(wire.carried(payload)[0] for payload in payloads)
        report.add(group, f"pieces of {len(payloads)} payloads on the wire", "none", f"{seen}" if seen else None)

    def exchange(self, to):
        seen, payload = exchange(None, size=50_000, connect=self.topology.through(to))
        if seen != "echoed":
            raise RigError(f"the control was {seen}")
        return payload

    def at_once(self, to, count):
        """Payloads of connections at once, and what is wrong with them."""
        before, results = len(self.topology.outbound.records()), []
        threads = [threading.Thread(target=lambda: results.append(
            exchange(None, size=50_000, connect=self.topology.through(to)))) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: len(self.topology.outbound.records()) >= before + count, 2)
        lines = [(line["transport"], line["dst.addr"]) for line in self.topology.outbound.records()[before:]]
        wrong = [seen for seen, _ in results if seen != "echoed"]
        if not wrong and lines == [("mtls", endpoint(*to))] * count:
            return [payload for _, payload in results], None
        return [payload for _, payload in results], f"{wrong} {lines}"

    def dials(self, payloads=None):
        """The address that is dialled for a connection to the DNS service, or why none is; adds its payload."""
        before = len(self.topology.outbound.records())
        seen, payload = exchange(None, size=1000, connect=self.topology.through(self.virtual(DNS_CART, t.STRICT)))
        if payloads is not None:
            payloads.append(payload)
        if not until(lambda: len(self.topology.outbound.records()) > before, 2):
            return seen
        line = self.topology.outbound.records()[before]
        return line["dst.addr"] if seen == "echoed" else line["reason"]

    def unresolved(self):
        group = "A name stops resolving"
        named, unknown = self.to(self.names.hosts[self.family], t.STRICT), self.to(t.UNKNOWN, t.STRICT)
        self.names.server.kill()
        self.refused(group, "an unknown address, a port of the name", "name_unresolved", unknown)
        self.mtls(group, "the address that it had", named, named)
        self.mtls(group, "the virtual address", self.virtual(DNS_CART, t.STRICT), named)
        unknown = self.to(t.UNKNOWN, t.PERMISSIVE)
        self.plaintext(group, "an unknown address, another port", unknown, unknown)
        self.names.server.start(TTL)
        # Not the same address: that one stays unknown for a second.
        unknown = self.to(t.UNKNOWN_TOO, t.STRICT)
        self.expect(group, "it resolves again: an unknown address", t.echo(self.topology.through(unknown)), "closed",
                    outbound={"decision": "allow", **self.out_plain(unknown)},
                    inbound=denied("plaintext_in_strict", **self.in_plain(unknown, "STRICT")))

    def vanishes(self):
        """An answer without addresses is an answer: the service has no endpoint, and its last address is still no stranger's."""
        group, named, service = "A name has no address any more", self.to(t.BY_NAME, t.STRICT), self.virtual(DNS_CART, t.STRICT)
        self.names.move(self.family, None)
        until(lambda: self.dials() == "no_endpoint", 5)
        self.refused(group, "the virtual address", "no_endpoint", service)
        self.refused(group, "the address that it had", "no_endpoint", named)
        self.names.move(self.family, t.BY_NAME)
        # An answer without addresses is valid for five seconds where the server does not say for how long.
        found = until(lambda: self.dials() == endpoint(*named), 10)
        self.topology.report.add(f"{group}, {self.family}", "the name is back", "echoed", None if found else "it is not found")

    def disabled(self):
        """Example 4 of the product: DISABLE is no outage for callers with sidecars."""
        group, topology = f"DISABLE by PeerAuthentication, {self.family}", self.topology
        outbound, first = topology.outbound, len(topology.outbound.records())
        caller = Caller(topology.through(self.virtual(CART, TO_STRICT)))
        known = outbound.policy

        def change(text, transport):
            topology.inbound.policy, outbound.policy = text, text + documents()
            for sidecar in (topology.inbound, outbound):
                sidecar.write_policy()
            reached = until(lambda: outbound.records()[-1].get("transport") == transport, 5)
            topology.report.add(group, f"callers go on in {transport}", "within 5 s", None if reached else "they do not")
            time.sleep(0.3)

        with caller:
            time.sleep(0.2)
            change(t.policy(p8001="DISABLE"), "plaintext")
            change(t.policy(), "mtls")
        if outbound.policy != known:
            raise RigError("the policy is not what it was")
        lost = [seen for seen in caller.outcomes if seen != "echoed"]
        topology.report.add(group, "requests all the while", "none lost",
                            None if len(caller.outcomes) > 20 and not lost else f"{len(lost)} of {len(caller.outcomes)}: {lost[:3]}")
        until(lambda: len(outbound.records()) >= first + len(caller.outcomes), 2)
        phases = [each for each, _ in itertools.groupby(line.get("transport") for line in outbound.records()[first:])]
        topology.report.add(group, "their transports, in order", "mtls, plaintext, mtls",
                            None if phases == ["mtls", "plaintext", "mtls"] else f"{phases}")

    def registry_only(self):
        group = "REGISTRY_ONLY"
        cart, named = self.to(t.MTLS, t.STRICT), self.to(self.names.hosts[self.family], t.STRICT)
        self.mtls(group, "virtual address", self.virtual(CART, TO_STRICT), cart)
        self.mtls(group, "DNS name", named, named)
        self.external(group)
        self.refused(group, "not declared", "no_route", self.to(t.UNKNOWN, t.PERMISSIVE))
        self.refused(group, "declared, another port", "no_route", self.to(t.EXTERNAL, t.DISABLE))
        self.refused(group, "virtual address, another port", "no_route", self.virtual(CART, t.PERMISSIVE))


class Caller:
    """One small request after the other while the `with` block lasts."""

    def __init__(self, connect):
        self.connect = connect
        self.outcomes = []
        self.ended = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()

    def _run(self):
        while not self.ended:
            self.outcomes.append(exchange(None, size=1000, connect=self.connect)[0])


def run(topology):
    names = Names(topology)
    families = [Directory(topology, family, names) for family in FAMILIES]
    topology.start_sidecars("directory", directory=documents())
    for name in ("declared", "own_service", "moves", "unresolved", "vanishes", "disabled"):
        for cases in families:
            getattr(cases, name)()
    topology.stop_sidecars("The service directory")
    topology.start_sidecars("registry", otherwise="refuse", directory=documents())
    for cases in families:
        cases.registry_only()
    topology.stop_sidecars("REGISTRY_ONLY")
    names.server.kill()
