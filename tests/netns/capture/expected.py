"""What the two sides must log of a connection."""

from rig.certificates import CLIENT, SERVER

from .namespaces import address, endpoint

POLICY = "shop/modes"


def logged(decision, reason, **fields):
    return {"decision": decision, "reason": reason, **fields}


def allowed(**fields):
    return logged("allow", "-", **fields)


def denied(reason, **fields):
    return logged("deny", reason, **fields)


def comes_from(host):
    return lambda seen: bool(seen) and seen.rsplit(":", 1)[0].strip("[]") == host


class Expected:
    """For connections of one IP version, to `to`, which is (host, port)."""

    def __init__(self, topology, family):
        self.topology = topology
        self.family = family
        self.own = address(family, 1)

    def expect(self, group, *arguments, **options):
        self.topology.expect(f"{group}, {self.family}", *arguments, **options)

    def to(self, host, port):
        return address(self.family, host), port

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
