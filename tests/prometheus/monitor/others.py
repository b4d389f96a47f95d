"""Queries of Istio's own dashboards and of Kiali, with their variables filled in. They run unchanged where ours are not installed."""

# Both split every TCP panel by this label.
_SECURE = {"mTLS": 'connection_security_policy="mutual_tls"', "no mTLS": 'connection_security_policy!="mutual_tls"'}
_BYTES = ("istio_tcp_received_bytes_total", "istio_tcp_sent_bytes_total")


def _istio():
    """The workload dashboard, inbound and outbound, and the service dashboard, by client and by server. `$qrep` is the reporter."""
    inbound = 'destination_workload_namespace=~"shop", destination_workload=~"cart"'
    source = 'source_workload=~"web|unknown", source_workload_namespace=~"shop|unknown"'
    outbound = 'source_workload_namespace=~"shop", source_workload=~"web"'
    service = 'destination_service=~"cart.shop.svc.cluster.local"'
    for metric in _BYTES:
        for security, selected in _SECURE.items():
            yield f"Istio workload, inbound, {security}: {metric}", (
                f'round(sum(irate({metric}{{reporter=~"destination", {selected}, {inbound}, {source}}}[1m])) '
                f"by (source_workload, source_workload_namespace), 0.001)")
            yield f"Istio service, {security}: {metric}", (
                f'round(sum(irate({metric}{{{selected}, reporter=~"destination", {service}, {source}}}[1m])) '
                f"by (destination_workload, destination_workload_namespace), 0.001)")
        yield f"Istio workload, outbound, mTLS: {metric}", (
            f'round(sum(irate({metric}{{{_SECURE["mTLS"]}, reporter="source", {outbound}, destination_service=~".*"}}[1m])) '
            f"by (destination_service), 0.001)")
    yield "Istio mesh: open connections", (
        f'sum(istio_tcp_connections_opened_total{{reporter=~"destination", {inbound}}}) by (destination_workload) '
        f'- sum(istio_tcp_connections_closed_total{{reporter=~"destination", {inbound}}}) by (destination_workload)')
    yield "Istio control plane: versions", "sum(istio_build) by (component, tag)"


# A series without one of these is dropped with a warning.
_GRAPH = ("source_cluster,source_workload_namespace,source_workload,source_canonical_service,source_canonical_revision,"
          "destination_cluster,destination_service_namespace,destination_service,destination_service_name,"
          "destination_workload_namespace,destination_workload,destination_canonical_service,destination_canonical_revision,"
          "response_flags")
_SECURITY = ("source_workload_namespace,source_workload,source_canonical_service,source_canonical_revision,source_principal,"
             "destination_service_namespace,destination_service_name,destination_workload_namespace,destination_workload,"
             "destination_canonical_service,destination_canonical_revision,destination_principal,connection_security_policy")


def _kiali():
    """The traffic graph and its lock, for one namespace."""
    for metric in _BYTES:
        yield f"Kiali graph: {metric}", (
            f'sum(rate({metric}{{app!="ztunnel", destination_workload_namespace="shop"}}[60s])) by ({_GRAPH},reporter) > 0')
        yield f"Kiali lock: {metric}", (
            f'sum(rate({metric}{{app!="ztunnel", reporter="destination", destination_workload_namespace="shop"}}[60s])) '
            f"by ({_SECURITY}) > 0")


QUERIES = dict([*_istio(), *_kiali()])


def kiali_problem(title, series):
    """Why Kiali would leave out a series of its graph or of its lock, or None."""
    labels = series["metric"]
    needed = (_SECURITY if "lock" in title else _GRAPH).split(",")
    if missing := [name for name in needed if not labels.get(name)]:
        return f"{', '.join(missing)}: missing in {labels}"
    for side in ("source", "destination"):
        known = labels[f"{side}_workload_namespace"] != "unknown"
        if known and labels.get(f"{side}_cluster", "Kubernetes") == "unknown":
            return f"{side}_cluster is unknown in {labels}"
        if known and labels[f"{side}_workload"] == labels[f"{side}_canonical_service"] == "unknown":
            return f"{side}: neither workload nor service is known in {labels}"
    return None
