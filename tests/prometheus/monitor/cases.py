"""Which expressions are run, and what they must find."""

import json
import math
import pathlib
import re

from rig.processes import RigError, run as command, until

from . import promql
from .mesh import Mesh
from .others import QUERIES, kiali_problem
from .prometheus import Prometheus

ROOT = pathlib.Path(__file__).resolve().parents[3]
CONFIG = ROOT / "config"
# Grafana's variables. The ranges are short: the traffic is.
VARIABLES = {"$__rate_interval": "30s", "$__range": "10m", "$instance": ".*", "$namespace": ".*"}
# They count what this mesh does not do, so they have no series; the reference has their labels.
UNSEEN = ("portcullis_outbound_downgrades_total", "portcullis_identity_bundle_polls_total")
# (alert, instance) that the trouble in the mesh makes fire.
FIRES_BY_ITSELF = {
    ("PortcullisCaUnreachable", "lonely"),
    ("PortcullisDown", "gone"),
    ("PortcullisPlaintextUnderPermissive", "cart"),
    ("PortcullisDryRunWouldRefuse", "cart"),
    ("PortcullisRefusalsRising", "cart"),
    ("PortcullisHandshakesFail", "web"),
}
FIRES_AFTER_CHANGES = {
    ("PortcullisPolicyStale", "cart"),
    ("PortcullisBreakGlassOpen", "late"),
    ("PortcullisCredentialsStale", "web"),
    ("PortcullisCertificateNotRenewed", "late"),
}
# (sidecar, reason) of the traffic that queries are to find; "-" is a connection that ended cleanly.
CALLS = {("cart", "-"), ("cart", "plaintext_in_strict"), ("web", "-"), ("web", "id_mismatch")}
# Alerts that nothing may set off in this mesh, but by mistake.
SILENT = {"PortcullisConnectionPanicked", "PortcullisDowngrade", "PortcullisExceptionEndsThisWeek", "PortcullisExceptionExpired",
          "PortcullisExceptionLasts", "PortcullisRootExpiresSoon"}


def run(binary, folder, processes, report):
    mesh = Mesh(binary, folder, processes)
    mesh.start()
    server = Prometheus(CONFIG / "prometheus", folder / "prometheus", mesh.targets(), processes)
    if not until(lambda: server.up() == set(mesh.all), 10):
        raise RigError(f"Prometheus scrapes only {server.up()}")
    mesh.call()
    group = "Traffic of every kind"
    ready = until(lambda: CALLS <= _calls(server), 60)
    report.add(group, "is counted and scraped", "several times", None if ready else f"only {_calls(server)}")
    _dashboard(server, report)
    _alert_names(server, report)
    _others(server, report)
    _alerts(server, mesh, report)
    mesh.end()
    _delays(report)


def _calls(server):
    """What was counted, (sidecar, reason), and grew between two scrapes."""
    found = server.query('sum by (instance, reason) (increase(portcullis_policy_decisions_total[20s])) > 3')
    return {(series["metric"]["instance"], series["metric"]["reason"]) for series in found}


def _dashboard(server, report):
    for title, expression in _panels():
        found = _result(server, expression)
        report.add("config/grafana/mtls.json", title, "finds series", _judge(server, title, expression, found))


def _panels():
    """(title, expression) of every panel and variable, with the variables filled in."""
    dashboard = json.loads((CONFIG / "grafana" / "mtls.json").read_text())
    for panel in dashboard["panels"]:
        for number, target in enumerate(panel.get("targets", []), 1):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            if "$" in expression:
                raise RigError(f"{panel['title']}: a variable without a value in {expression}")
            yield f"{panel['title']} ({number})", expression
    for variable in dashboard["templating"]["list"]:
        if match := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.get("definition", "")):
            metric, label = match.groups()
            yield f"variable {variable['name']}", f"count by ({label}) ({metric})"


def _result(server, expression):
    try:
        return server.query(expression)
    except ValueError as error:
        return error


def _judge(server, title, expression, found):
    """What is wrong with an expression and what it found, or None."""
    if isinstance(found, ValueError):
        return str(found)
    if problem := promql.problem(expression, lambda metric: _labels(server, metric)):
        return problem
    if not found and not any(name in expression for name in UNSEEN):
        return "nothing is found"
    values = [float(series["value"][1]) for series in found]
    if any(math.isnan(value) for value in values) and "quantile" not in expression:
        return "a value is NaN"
    return _wrong_value(title, found)


def _wrong_value(title, found):
    """Panels with a value that the traffic makes known."""
    by = {tuple(sorted(series["metric"].items())): float(series["value"][1]) for series in found}
    if title.startswith(("Connections with mTLS", "Bytes with mTLS")):
        return None if all(0 < value < 1 for value in by.values()) else f"not a share between 0 and 1: {by}"
    if title.startswith("Share of mTLS by edge"):
        shares = {series["metric"]["source_workload"]: float(series["value"][1]) for series in found}
        return None if shares == {"web": 1, "unknown": 0} else f"{shares}"
    if title.startswith("By port"):
        ports = {series["metric"]["port"] for series in found}
        return None if ports == {"8002"} else f"ports {ports}"
    if title.startswith("By sidecar, port"):
        seen = {(series["metric"]["instance"], series["metric"]["reason"]) for series in found}
        wanted = {("cart", "plaintext_in_strict"), ("web", "id_mismatch")}
        return None if wanted <= seen else f"{seen}"
    return None


def _labels(server, metric):
    found = server.labels(metric)
    if found or metric not in UNSEEN:
        return found
    row = re.search(rf"^\| [^|]*`{metric}`[^|]*\|([^|]*)\|", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row[1])) if row else set()


def _alert_names(server, report):
    rules = server.rules()
    for name, expression in rules.items():
        problem = promql.problem(expression, lambda metric: _labels(server, metric))
        report.add("config/prometheus/alerts.yaml", name, "names what exists", problem)
    unknown = {name for name, _ in FIRES_BY_ITSELF | FIRES_AFTER_CHANGES} | SILENT
    report.add("config/prometheus/alerts.yaml", "alerts that are expected below", "exist",
               str(unknown - set(rules)) if unknown - set(rules) else None)


def _others(server, report):
    group = "Queries of Istio's dashboards and of Kiali"
    for title, expression in QUERIES.items():
        found = _result(server, expression)
        problem = _judge(server, title, expression.replace('app!="ztunnel", ', ""), found)
        if not problem and title.startswith("Kiali"):
            problem = next(filter(None, (kiali_problem(title, series) for series in found)), None) or _lock(title, found)
        report.add(group, title, "finds series", problem)


def _lock(title, found):
    """web -> cart is locked, and what has no identity is not."""
    if "lock" not in title:
        return None
    seen = {(series["metric"]["source_workload"], series["metric"]["connection_security_policy"]) for series in found}
    return None if seen == {("web", "mutual_tls"), ("unknown", "none")} else str(seen)


def _alerts(server, mesh, report):
    group = "Alerts that fire"
    mesh.break_policy()
    mesh.break_credentials()
    mesh.break_glass()
    mesh.shorten("short", 900)
    wanted = FIRES_BY_ITSELF | FIRES_AFTER_CHANGES
    until(lambda: wanted <= server.firing(), 60)
    firing = server.firing()
    for alert, instance in sorted(wanted):
        report.add(group, alert, f"for {instance}", None if (alert, instance) in firing else "it does not fire")
    mesh.shorten("shorter", 3)
    expired = ("PortcullisCertificateExpired", "late")
    report.add(group, expired[0], "for late", None if until(lambda: expired in server.firing(), 20) else "it does not fire")
    fired = {alert for alert, _ in server.firing()}
    for alert in sorted(SILENT):
        report.add("Alerts that do not fire", alert, "silent", "it fires" if alert in fired else None)


def _delays(report):
    """What takes minutes or days, with the files as they are shipped."""
    group = "promtool"
    for case, arguments in {
        "check config": ["check", "config", CONFIG / "prometheus" / "prometheus.yaml"],
        "test rules, minutes": ["test", "rules", ROOT / "tests" / "prometheus" / "alerts.test.yaml"],
        "test rules, days": ["test", "rules", ROOT / "tests" / "prometheus" / "alerts-days.test.yaml"],
    }.items():
        try:
            command(["promtool", *arguments])
            problem = None
        except RigError as error:
            problem = str(error)
        report.add(group, case, "ok", problem)
