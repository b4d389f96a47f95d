"""A real Prometheus scrapes two sidecars and answers the queries of Kiali and of Istio's dashboards."""

import json
import pathlib
import subprocess
import time
import urllib.parse

from rig.processes import RigError, free_port

from .life import debian
from .mesh import Result, Mesh, get, until

KIALI = ("source_workload_namespace, source_workload, source_canonical_service, source_canonical_revision, "
         "source_principal, destination_service, destination_service_namespace, destination_service_name, "
         "destination_workload_namespace, destination_workload, destination_canonical_service, "
         "destination_canonical_revision, destination_principal, response_flags")
GRAPH = f'sum by ({KIALI}) (rate(istio_tcp_sent_bytes_total{{reporter="destination",app!="ztunnel"}}[1m])) > 0'
PANEL = ('sum by (source_workload, destination_workload) (rate(istio_tcp_received_bytes_total'
         '{{reporter="{reporter}",connection_security_policy{op}"mutual_tls"}}[1m]))')
CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: sidecars
  metrics_path: /stats/prometheus
  static_configs: [{{targets: ["127.0.0.1:{cart}", "127.0.0.1:{web}"]}}]
"""
EDGE = {
    "source_workload_namespace": "shop", "source_workload": "web", "source_canonical_service": "web",
    "source_canonical_revision": "latest", "source_principal": "spiffe://cluster.local/ns/shop/sa/web",
    "destination_service": "cart.shop.svc.cluster.local", "destination_service_namespace": "shop",
    "destination_service_name": "cart", "destination_workload_namespace": "shop", "destination_workload": "cart",
    "destination_canonical_service": "interop", "destination_canonical_revision": "latest",
    "destination_principal": "spiffe://cluster.local/ns/shop/sa/cart", "response_flags": "-",
}


def prometheus(context):
    """The edge has every label that Kiali needs, and mTLS and plaintext are distinguished."""
    result = Result("a real Prometheus scrapes two sidecars")
    try:
        program = debian("prometheus", pathlib.Path("target/soak-tools/prometheus").resolve(), "bin/prometheus")
    except (RigError, subprocess.SubprocessError, OSError) as error:
        result.skipped = str(error).splitlines()[0]
        return result
    with Mesh(context, mode="PERMISSIVE") as mesh:
        port = free_port()
        config = mesh.folder / "prometheus.yaml"
        config.write_text(CONFIG.format(cart=mesh.cart.admin, web=mesh.web.admin))
        server = mesh.processes.start("prometheus", [
            program, f"--config.file={config}", f"--storage.tsdb.path={mesh.folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"])
        mesh.processes.wait_until_ready(server, f"http://127.0.0.1:{port}/-/ready", 30)
        # One connection for all the time: its bytes must be counted while it lives.
        loads = [mesh.load("streams", "direct" if context.sabotage else "web", count=1, interval=100),
                 mesh.load("exchange", "direct" if context.sabotage else "web", rate=20)]
        until(lambda: query(port, GRAPH), 30)
        time.sleep(context.either(5, 60))
        ask_mtls(result, port)
        loads += [mesh.load("exchange", "direct", rate=20)]
        plain = PANEL.format(reporter="destination", op="!=")
        seen = until(lambda: any(labels["source_workload"] == "unknown" for labels, _ in query(port, plain)), 15)
        result.claim("plaintext shows beside it in the other panel", query(port, plain), "unknown -> cart", seen)
        for load in loads:
            said = load.ask("stop", 60)
            result.zero("connections failed", said["failed"])
        up = query(port, "min_over_time(up[1m])")
        result.claim("scrapes that failed", [value for _, value in up], "none", len(up) == 2 and all(value == 1 for _, value in up))
    return result


def ask_mtls(result, port):
    found = query(port, GRAPH)
    result.claim("edges in Kiali's graph query", len(found), 1, len(found) == 1)
    labels = found[0][0] if found else {}
    wrong = {name: labels.get(name) for name, value in EDGE.items() if labels.get(name) != value}
    result.claim("labels of that edge that are not as they must be", wrong or "none", "none", not wrong)
    result.claim("bytes/s on it", f"{found[0][1]:.0f}" if found else 0, "> 0", bool(found))
    for reporter in ("destination", "source"):
        for op, wanted in (("=", 1), ("!=", 0)):
            panel = [(labels, value) for labels, value in query(port, PANEL.format(reporter=reporter, op=op)) if value > 0]
            right = len(panel) == wanted and all(
                labels == {"source_workload": "web", "destination_workload": "cart"} for labels, _ in panel)
            result.claim(f'{reporter}: series with policy {op} "mutual_tls"', len(panel), wanted, right)
    series = query(port, 'istio_tcp_sent_bytes_total{connection_security_policy="mutual_tls"}')
    unknown = sorted({name for labels, _ in series for name, value in labels.items() if value in ("unknown", "")})
    result.claim("labels of mTLS series that are unknown", unknown or "none", "none", series and not unknown)


def query(port, expression):
    status, body = get(port, f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    if status != 200:
        raise RigError(f"Prometheus answers {status} to {expression}: {body[:300]}")
    return [(series["metric"], float(series["value"][1])) for series in json.loads(body)["data"]["result"]]
