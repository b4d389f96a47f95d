"""Envoy as an endpoint of our service directory, as a server outside of the mesh, and behind our gateway listener."""

import json
import threading
import time

from . import openssl
from .app import EchoApp, connect_locally, exchange
from .certificates import CLIENT, SERVER, Authority, Set
from .envoy import Envoy
from .portcullis import JSON_LOG, POLICY, Portcullis
from .processes import free_port, until

# Of every service; the endpoint has another one.
PORT = 80
SIDECAR = {"serviceAccount": "cart", "labels": {"app": "envoy"}}
FLIPS, MODE_FLIPS = 100, 10
OUTSIDE = "shop.example.com"


def _document(kind, name, spec, group="networking"):
    # JSON is YAML.
    return "---\n" + json.dumps({"apiVersion": f"{group}.istio.io/v1", "kind": kind,
                                 "metadata": {"name": name, "namespace": "shop"}, "spec": spec}) + "\n"


def _service(name, host, target, endpoint, location="MESH_INTERNAL"):
    return _document("ServiceEntry", name, {
        "hosts": [host], "location": location, "resolution": "STATIC",
        "ports": [{"number": PORT, "name": "tcp", "protocol": "TCP", "targetPort": target}],
        "endpoints": [{"address": "127.0.0.1", **endpoint}]})


def _mode(name, mode, app):
    return _document("PeerAuthentication", name, {"selector": {"matchLabels": {"app": app}}, "mtls": {"mode": mode}}, "security")


def _rule(name, host, **tls):
    return _document("DestinationRule", name, {"host": host, "trafficPolicy": {"tls": tls}})


class Callers:
    """So many callers, each with one request after the other, while the `with` block lasts."""

    def __init__(self, port, count, size):
        self.port, self.count, self.size = port, count, size
        self.outcomes = []
        self.ended = False
        self.threads = [threading.Thread(target=self._call, daemon=True) for _ in range(count)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        for thread in self.threads:
            thread.join()

    def _call(self):
        while not self.ended:
            self.outcomes.append(exchange(self.port, size=self.size)[0])


class Directory:
    """One sidecar with a gateway listener, and an Envoy with a listener for each thing that it can be to it."""

    def __init__(self, folder, binary, envoy_binary, processes, report):
        folder.mkdir()
        leaves = Set(folder / "certs", Authority.portcullis(folder / "ca", binary))
        web = Authority.openssl(folder / "web-ca", "web CA")
        self.root = str(web.root)
        self.report = report
        self.app = EchoApp()
        self.envoy = Envoy("directory-envoy", folder)
        ports = {mode: self.envoy.inbound(mode, mode, self.app.port, leaves.server, leaves.root)
                 for mode in ("STRICT", "PERMISSIVE", "DISABLE")}
        outside = web.sign(folder / "outside", "DNS:simple.example,DNS:mutual.example,DNS:bare.example")
        ports["SIMPLE"] = self.envoy.server("SIMPLE", self.app.port, outside)
        ports["MUTUAL"] = self.envoy.server("MUTUAL", self.app.port, outside, web.root)
        self.envoy.start(envoy_binary, processes)

        tls = folder / "tls"
        mutual = web.sign(tls / "client", "DNS:web.example")
        (tls / "ca.pem").write_bytes(web.root.read_bytes())
        external = {"location": "MESH_EXTERNAL", "endpoint": {}}
        self.sidecar = Portcullis("directory", folder, binary, CLIENT, leaves.client, arguments=JSON_LOG, policy=POLICY + "".join([
            _service("strict", "strict", ports["STRICT"], SIDECAR),
            _service("permissive", "permissive", ports["PERMISSIVE"], SIDECAR),
            _service("flipping", "flipping", ports["PERMISSIVE"], {**SIDECAR, "labels": {"app": "flipping"}}),
            _service("other", "other", ports["STRICT"], {**SIDECAR, "serviceAccount": "other"}),
            _service("disable", "disable", ports["DISABLE"], {**SIDECAR, "labels": {"app": "legacy"}}),
            _mode("legacy", "DISABLE", "legacy"),
            _service("bare", "bare", ports["DISABLE"], {}),
            _service("simple", "simple.example", ports["SIMPLE"], **external),
            _rule("simple", "simple.example", mode="SIMPLE", caCertificates="ca.pem"),
            _service("renamed", "renamed.example", ports["SIMPLE"], **external),
            _rule("renamed", "renamed.example", mode="SIMPLE", caCertificates="ca.pem"),
            _service("mutual", "mutual.example", ports["MUTUAL"], **external),
            _rule("mutual", "mutual.example", mode="MUTUAL", caCertificates="ca.pem",
                  clientCertificate="client/cert.pem", privateKey="client/key.pem"),
            _service("anonymous", "bare.example", ports["MUTUAL"], **external),
            _rule("anonymous", "bare.example", mode="SIMPLE", caCertificates="ca.pem"),
        ]))
        self.ports = {host: self.sidecar.auto(host, PORT) for host in (
            "strict", "permissive", "flipping", "other", "disable", "bare", "simple.example", "renamed.example",
            "mutual.example", "bare.example")}
        self.sidecar.config["outbound"]["tlsFolder"] = str(tls)
        shop = web.sign(folder / "shop", f"DNS:{OUTSIDE}")
        self.gateway_port = free_port()
        self.sidecar.config["gateway"] = {"listeners": [{
            "listen": f"127.0.0.1:{self.gateway_port}",
            "tls": {"mode": "SIMPLE", "certificates": [
                {"hosts": [OUTSIDE], "certificate": shop.certificate, "privateKey": shop.key}]},
            "routes": [{"hosts": [OUTSIDE], "address": f"strict:{PORT}", "mode": "auto"}],
        }]}
        self.sidecar.start(processes)

    def expect(self, group, case, act, outcome, envoy=None, **fields):
        """`act` returns an outcome and the payload. The sidecar must write one line with these fields, and Envoy a line of the
        listener `envoy[0]` with the client's identity `envoy[1]`. Without it no byte of the payload may have passed."""
        before, said = len(self.sidecar.records()), len(self.envoy.log())
        seen, payload = act()
        problems = [] if seen.startswith(outcome) else [seen]
        until(lambda: len(self.sidecar.records()) > before, 3)
        lines = self.sidecar.records()[before:]
        logged = [{field.replace("_", "."): line.get(field.replace("_", ".")) for field in fields} for line in lines]
        wanted = {field.replace("_", "."): value for field, value in fields.items()}
        if logged != [wanted]:
            problems.append(f"logged {logged}, not {wanted}: {lines[:1]}")
        if envoy:
            line = "|".join(envoy) + "|"
            if not until(lambda: line in self.envoy.log()[said:], 3):
                problems.append(f"Envoy logged {self.envoy.log()[said:]!r}, not {line}")
        elif self.app.saw(payload):
            problems.append("the payload reached the app")
        self.report.add(group, case, outcome, "; ".join(problems) or None)

    def endpoints(self):
        group = "The service directory -> Envoy"

        def via(host):
            return lambda: exchange(self.ports[host])

        mtls = {"decision": "allow", "mode": "mtls", "transport": "mtls", "src_identity": CLIENT, "dst_identity": SERVER}
        plaintext = {"decision": "allow", "mode": "plaintext", "transport": "plaintext", "dst_identity": None}
        origination = {"decision": "allow", "mode": "tls", "transport": "tls", "dst_identity": None}
        self.expect(group, "a sidecar -> STRICT", via("strict"), "echoed", ("STRICT", CLIENT), **mtls)
        self.expect(group, "a sidecar -> PERMISSIVE", via("permissive"), "echoed", ("PERMISSIVE", CLIENT), **mtls)
        self.expect(group, "another serviceAccount -> STRICT", via("other"), "closed", decision="deny", reason="id_mismatch")
        self.expect(group, "PeerAuthentication DISABLE -> plaintext", via("disable"), "echoed", ("DISABLE", "-"), **plaintext,
                    policy="shop/legacy")
        self.expect(group, "no serviceAccount -> plaintext", via("bare"), "echoed", ("DISABLE", "-"), **plaintext)
        self.expect(group, "DestinationRule SIMPLE -> TLS", via("simple.example"), "echoed", ("SIMPLE", "-"), **origination)
        self.expect(group, "SIMPLE, another server name -> TLS", via("renamed.example"), "closed", decision="deny",
                    reason="server_name_mismatch")
        # The certificate of the client has no URI.
        self.expect(group, "DestinationRule MUTUAL -> TLS with certificates", via("mutual.example"), "echoed", ("MUTUAL", "-"),
                    **origination)
        self.expect(group, "SIMPLE -> TLS with certificates", via("bare.example"), "closed", decision="deny", reason="tls_alert")

    def gateway(self):
        group = "Gateway listener -> Envoy"

        def from_outside(*arguments):
            def act():
                seen = openssl.connect(self.gateway_port, "-CAfile", self.root, "-verify_return_error", *arguments)
                return ("echoed" if seen.echoed else f"closed: {seen}"), seen.sent
            return act

        name = ("-servername", OUTSIDE, "-verify_hostname", OUTSIDE)
        for flag in ("-tls1_3", "-tls1_2"):
            self.expect(group, f"{flag[1:]}, by its name", from_outside(flag, *name), "echoed", ("STRICT", CLIENT),
                        decision="allow", transport="mtls", dst_identity=SERVER, sni=OUTSIDE)
        self.expect(group, "another name", from_outside("-servername", "other.example.com"), "closed", decision="deny",
                    reason="unknown_server_name")
        self.expect(group, "no name", from_outside("-noservername"), "closed", decision="deny", reason="unknown_server_name")
        self.expect(group, "plaintext", lambda: exchange(self.gateway_port), "closed", decision="deny",
                    reason="plaintext_at_gateway")

    def flips(self):
        """Envoy's PERMISSIVE takes both, so that each of our decisions is served."""
        group, first = f"DISABLE for Envoy and back, {MODE_FLIPS} times", len(self.sidecar.records())
        with Callers(self.ports["flipping"], 1, 1000) as callers:
            missed = 0
            for flip in range(MODE_FLIPS):
                mode, transport = (("DISABLE", "plaintext"), ("STRICT", "mtls"))[flip % 2]
                self.sidecar.write_document("flipping.yaml", _mode("flipping", mode, "flipping"))
                missed += not until(lambda: self.sidecar.records()[-1]["transport"] == transport, 5)
        self.report.add(group, "the next connections follow", "each time", f"not {missed} times" if missed else None)
        self._none_lost(group, callers)
        until(lambda: len(self.sidecar.records()) >= first + len(callers.outcomes), 3)
        seen = {(line["transport"], line.get("dst.identity")) for line in self.sidecar.records()[first:]}
        wanted = {("mtls", SERVER), ("plaintext", None)}
        self.report.add(group, "their transports", "mtls and plaintext", None if seen == wanted else str(seen))

    def _none_lost(self, group, callers):
        lost = [seen for seen in callers.outcomes if seen != "echoed"]
        self.report.add(group, f"requests of {callers.count}", "none lost", None if len(callers.outcomes) >= 100 and not lost else
                        f"{len(lost)} of {len(callers.outcomes)}: {lost[:3]}")

    def storm(self):
        """Policies and entries of others change all the time, and no connection notices."""
        group, first = f"{FLIPS} changes of other policies and entries", len(self.sidecar.records())
        generation = "portcullis_policy_generation"
        before = self.sidecar.metrics()[generation]
        with connect_locally(self.ports["strict"]) as lasting, Callers(self.ports["strict"], 3, 20_000) as callers:
            lasting.sendall(b"before")
            alive = lasting.recv(6) == b"before"
            for flip in range(FLIPS):
                app, mode = f"other-{flip % 7}", ("STRICT", "DISABLE")[flip % 2]
                self.sidecar.write_document("storm.yaml", "".join([
                    _mode("storm", mode, app),
                    _service("storm", f"storm-{flip % 5}", 1, {**SIDECAR, "labels": {"app": app}}),
                    _rule("storm", f"storm-{flip % 5}", mode="ISTIO_MUTUAL") if flip % 3 else "",
                ]))
                time.sleep(0.08)
            lasting.sendall(b"after")
            alive = alive and lasting.recv(5) == b"after"
        self._none_lost(group, callers)
        self.report.add(group, "a connection all the while", "stays open", None if alive else "it does not")
        until(lambda: len(self.sidecar.records()) > first + len(callers.outcomes), 3)
        seen = {(line["transport"], line.get("dst.identity")) for line in self.sidecar.records()[first:]}
        self.report.add(group, "their transports", "mtls", None if seen == {("mtls", SERVER)} else str(seen))
        sets = self.sidecar.metrics()[generation] - before
        self.report.add(group, "sets that came into force meanwhile", "at least 10", None if sets >= 10 else f"{sets}")


def run(folder, binary, envoy_binary, processes, report):
    directory = Directory(folder, binary, envoy_binary, processes, report)
    directory.endpoints()
    directory.gateway()
    directory.flips()
    directory.storm()
