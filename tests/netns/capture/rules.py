"""`portcullis intercept` by itself: what it plans, installs, verifies and removes, before any sidecar runs.

The capture ports have no listener, so a captured connection is refused and any other reaches the app. Each rule can
therefore be observed without a sidecar."""

import socket
import subprocess
import threading

from rig.processes import RigError

from . import topology as t
from .apps import ending
from .namespaces import FAMILIES, INBOUND, OUTBOUND, SIDECAR_UID, address, loopback

GROUP = "portcullis intercept"
PORT = t.PERMISSIVE

# Arguments that together use every kind of rule.
EVERYTHING = (
    "--inbound-capture-port", "16006", "--outbound-capture-port", "16001", "--proxy-uid", "4000000000",
    "--include-inbound-ports", "8080,9090", "--exclude-inbound-ports", "22", "--include-inbound-ip-ranges",
    "10.0.0.0/8,0.0.0.0/0,::/0,2001:db8::/33", "--exclude-inbound-ip-ranges", "172.16.0.0/12,10.1.1.1,fd00::/8",
    "--include-outbound-ports", "443,8443", "--exclude-outbound-ports", "25,53", "--include-outbound-ip-ranges",
    "10.0.0.0/8,192.168.4.0/22,2001:db8::1", "--exclude-outbound-ip-ranges", "10.9.0.0/31,fd00::1",
    "--exclude-interfaces", "eth1,br-0a1b2c3d4e5f", "--drop-inbound-udp-ports", "443",
    "--drop-outbound-udp-ports", "443,8443",
)
PLANS = {
    "the default": (),
    "every kind of rule": EVERYTHING,
    "nothing outbound": ("--include-outbound-ip-ranges", ""),
    "no port inbound": ("--include-inbound-ports", ""),
    "a thousand rules": ("--exclude-inbound-ports", ",".join(map(str, range(20000, 21000)))),
}


def run(topology):
    _listed(topology)
    _refused(topology)
    for family in FAMILIES:
        for case, side, arguments, to, outcome in _table(family):
            _check_rule(topology, f"Rules at work, {family}", case, side, arguments, to, outcome)
        _datagrams(topology, family)
        _overtaken(topology, family)
    _replaced(topology)
    _verified(topology)
    for side in (topology.client, topology.server):
        topology.report.add(GROUP, "remove, twice", "nothing is left", _removed(topology, side))


def _listed(topology):
    """The installed rules, as nft lists them, are the plan."""
    side, report = topology.client, topology.report
    for case, arguments in PLANS.items():
        plan = side.intercept(topology.binary, "plan", *arguments)
        said = side.intercept(topology.binary, "install", *arguments)
        listed = side.run("nft", "list", "ruleset")
        report.add(GROUP, f"plan, {case}", "is what nft lists once it is installed",
                   None if plan == listed and said.startswith("installed: ") else f"{said}{plan}, but:\n{listed}")
        again = side.intercept(topology.binary, "install", *arguments)
        report.add(GROUP, f"install again, {case}", "says that nothing changes",
                   None if again == said.replace("installed", "unchanged") else again)
        side.run("nft", "--check", "--file", "-", given=plan)
    side.run("nft", "add", "rule", "inet", "portcullis", "inbound", "tcp", "dport", "1", "return")
    code, text = _command(topology, side, "verify", *PLANS["a thousand rules"])
    report.add(GROUP, "verify, after a rule was added", "exit code 1, and names the chain",
               None if code == 1 and "inbound has more rules" in text else f"{code}: {text}")
    side.run("nft", "add", "table", "inet", "portcullis", "{ flags dormant; }")
    code, text = _command(topology, side, "verify", *PLANS["a thousand rules"])
    report.add(GROUP, "verify, after our table was made dormant", "exit code 1, and says so",
               None if code == 1 and "dormant" in text else f"{code}: {text}")
    side.run("nft", "add", "table", "inet", "others")
    said = side.intercept(topology.binary, "install")
    listed = side.run("nft", "list", "ruleset")
    report.add(GROUP, "install over changed rules", "repairs ours, leaves those of others",
               None if said.startswith("installed") and listed.count("table inet others") == 1
               and "dport 1 return" not in listed else f"{said}{listed}")
    side.run("nft", "delete", "table", "inet", "others")


def _refused(topology):
    side, report = topology.client, topology.report
    before = side.run("nft", "list", "ruleset")
    for command in ("install", "verify", "remove"):
        code, text = _command(topology, side, command, wrapper=("setpriv", "--reuid", "1000", "--clear-groups"))
        # What only reads says what it could not see.
        wanted = 81 if command == "verify" else 77
        report.add(GROUP, f"{command}, without CAP_NET_ADMIN", f"exit code {wanted}, and says why",
                   None if code == wanted and "CAP_NET_ADMIN" in text else f"{code}: {text}")
    for argument, wrong in (("--exclude-inbound-ports", "http"), ("--exclude-outbound-ip-ranges", "10.0.0.1/8"),
                            ("--include-inbound-ports", "80,0"), ("--exclude-interfaces", "eth0;eth1")):
        code, text = _command(topology, side, "install", argument, wrong)
        report.add(GROUP, f"install {argument} {wrong}", "exit code 64, and names the argument",
                   None if code == 64 and argument in text else f"{code}: {text}")
    code, text = _command(topology, side, "install", wrapper=(
        "setpriv", "--reuid", "1000", "--clear-groups", "--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"))
    report.add(GROUP, "install, with CAP_NET_ADMIN and nothing else", "exit code 0", None if code == 0 else text)
    report.add(GROUP, "the rules, after all that", "as before",
               None if side.run("nft", "list", "ruleset") == before else "changed")
    side.intercept(topology.binary, "remove")


def _table(family):
    """(case, whose rules, arguments, destination, outcome); the client dials."""
    here, there = address(family, 1), address(family, t.MTLS)
    width = {"IPv4": 32, "IPv6": 128}[family]
    other = {"IPv4": "IPv6", "IPv6": "IPv4"}[family]
    to, own = (there, PORT), (here, PORT)
    yield "inbound: captured", "server", (), to, "refused"
    yield "inbound: an excluded port", "server", ("--exclude-inbound-ports", PORT), to, "reached"
    yield "inbound: another port is excluded", "server", ("--exclude-inbound-ports", PORT + 1), to, "refused"
    yield "inbound: an included port", "server", ("--include-inbound-ports", PORT), to, "refused"
    yield "inbound: another port is included", "server", ("--include-inbound-ports", PORT + 1), to, "reached"
    yield "inbound: an excluded client", "server", ("--exclude-inbound-ip-ranges", f"{here}/{width - 1}".replace(
        ".1/", ".0/").replace("::1/", "::/")), to, "reached"
    yield "inbound: an included client", "server", ("--include-inbound-ip-ranges", here), to, "refused"
    yield "inbound: another client is included", "server", ("--include-inbound-ip-ranges", there), to, "reached"
    yield "inbound: only the other version of IP", "server", (
        "--include-inbound-ip-ranges", {"IPv4": "::/0", "IPv6": "0.0.0.0/0"}[family]), to, "reached"
    yield "inbound: an excluded interface", "server", ("--exclude-interfaces", "pct-server"), to, "reached"
    yield "outbound: captured", "client", (), to, "refused"
    yield "outbound: an excluded port", "client", ("--exclude-outbound-ports", PORT), to, "reached"
    yield "outbound: an excluded destination", "client", ("--exclude-outbound-ip-ranges", there), to, "reached"
    yield "outbound: another destination is excluded", "client", (
        "--exclude-outbound-ip-ranges", f"{here},{address(other, t.MTLS)}"), to, "refused"
    yield "outbound: nothing is included", "client", ("--include-outbound-ip-ranges", ""), to, "reached"
    yield "outbound: an included port", "client", (
        "--include-outbound-ip-ranges", "", "--include-outbound-ports", PORT), to, "refused"
    yield "outbound: an included destination", "client", ("--include-outbound-ip-ranges", there), to, "refused"
    yield "outbound: another destination is included", "client", ("--include-outbound-ip-ranges", here), to, "reached"
    yield "outbound: an excluded interface", "client", ("--exclude-interfaces", "pct-client"), to, "reached"
    yield "outbound: the sidecar's user", "client", ("--proxy-uid", 0), to, "reached"
    yield "outbound: to oneself, by loopback", "client", (), (loopback(family), PORT), "reached"
    yield "outbound: to oneself, by an address of one's own", "client", (), own, "reached"


def _check_rule(topology, group, case, side, arguments, to, outcome):
    side = {"client": topology.client, "server": topology.server}[side]
    side.intercept(topology.binary, "install", *arguments)
    own = None
    if to[0] in (address("IPv4", 1), address("IPv6", 1), "127.0.0.1", "::1"):
        own = topology.client.listen(to[1])
    try:
        seen = _dial(topology, to)
    finally:
        if own:
            own.close()
        side.intercept(topology.binary, "remove")
    topology.report.add(group, case, outcome, None if seen == outcome else seen)


def _dial(topology, to):
    try:
        topology.client.connect(*to).close()
        return "reached"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return str(error)


def _datagrams(topology, family):
    """UDP is not captured, and dropped where that was asked for."""
    group, there = f"Rules at work, {family}", address(family, t.MTLS)
    kind = (socket.AF_INET6 if family == "IPv6" else socket.AF_INET, socket.SOCK_DGRAM)
    for case, side, arguments, arrives in (
            ("UDP is left alone", topology.client, (), True),
            ("UDP to a dropped port, outbound", topology.client, ("--drop-outbound-udp-ports", PORT), False),
            ("UDP to another port, outbound", topology.client, ("--drop-outbound-udp-ports", PORT + 1), True),
            ("UDP to a dropped port, outbound, by the sidecar", topology.client, (
                "--drop-outbound-udp-ports", PORT, "--proxy-uid", 0), True),
            ("UDP to a dropped port, inbound", topology.server, ("--drop-inbound-udp-ports", PORT), False)):
        side.intercept(topology.binary, "install", *arguments)
        with topology.server:
            receiver = socket.socket(*kind)
        with topology.client:
            sender = socket.socket(*kind)
        with receiver, sender:
            receiver.bind((there, PORT))
            receiver.settimeout(2 if arrives else 0.2)
            try:
                sender.sendto(b"x", (there, PORT))
                seen = receiver.recv(9) == b"x"
            except (TimeoutError, PermissionError):
                # The kernel reports a datagram dropped in the output hook to its sender.
                seen = False
        side.intercept(topology.binary, "remove")
        topology.report.add(group, case, "arrives" if arrives else "is dropped", None if seen == arrives else str(seen))


def _overtaken(topology, family):
    """Another table's NAT rule matches the same connections at a later priority: ours must apply first."""
    side, to = topology.server, (address(family, t.MTLS), PORT)
    side.intercept(topology.binary, "install")
    side.run("nft", "-f", "-", given="add table inet others\n"
             "add chain inet others prerouting { type nat hook prerouting priority dstnat; }\n"
             f"add rule inet others prerouting tcp dport {PORT} redirect to :{PORT}\n")
    seen = _dial(topology, to)
    side.run("nft", "delete", "table", "inet", "others")
    side.intercept(topology.binary, "remove")
    topology.report.add(f"Rules at work, {family}", "inbound: another table translates it as well", "refused",
                        None if seen == "refused" else seen)


def _replaced(topology):
    """Rules are replaced in one step: not one connection gets through in between."""
    plans = ((), ("--exclude-inbound-ports", "22"))
    topology.server.intercept(topology.binary, "install")
    done, escaped, dialled = threading.Event(), [], [0]

    def dial():
        # A thread enters a namespace by itself; each dial enters and leaves.
        while not done.is_set():
            dialled[0] += 1
            seen = ending(lambda: topology.client.connect(address("IPv4", t.MTLS), PORT))[0]
            if seen != "refused":
                escaped.append(seen)

    thread = threading.Thread(target=dial)
    thread.start()
    try:
        for number in range(40):
            topology.server.intercept(topology.binary, "install", *plans[(number + 1) % 2])
    finally:
        done.set()
        thread.join()
    topology.server.intercept(topology.binary, "remove")
    if dialled[0] < 40:
        raise RigError(f"only {dialled[0]} connections during 40 replacements")
    topology.report.add(GROUP, "40 replacements while connections are opened", "none escapes",
                        f"{len(escaped)} of {dialled[0]}: {escaped[:3]}" if escaped else None)


def _verified(topology):
    """`verify` with and without a default route, which its probe needs."""
    side, report = topology.client, topology.report
    code, text = _command(topology, side, "verify")
    report.add(GROUP, "verify, without rules", "exit code 1, and what to do",
               None if code == 1 and "intercept install" in text else f"{code}: {text}")
    side.intercept(topology.binary, "install")
    code, text = _command(topology, side, "verify")
    report.add(GROUP, "verify, without a route", "exit code 0, and says so",
               None if code == 0 and text.count("no route") == 2 else f"{code}: {text}")
    for family in FAMILIES:
        side.route("default", address(family, t.MTLS))
    code, text = _command(topology, side, "verify")
    report.add(GROUP, "verify, without a sidecar", "exit code 0, both probes arrive",
               None if code == 0 and text.count("arrived here") == 2 else f"{code}: {text}")
    code, text = _command(topology, side, "verify", wrapper=(
        "setpriv", "--reuid", SIDECAR_UID, "--clear-groups", "--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"))
    report.add(GROUP, "verify, as the sidecar's user", "exit code 81: not captured, so no proof",
               None if code == 81 and text.count("run it as another one") == 2 else f"{code}: {text}")
    with side:
        listeners = [socket.create_server((host, OUTBOUND), family=kind)
                     for host, kind in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))]
    code, text = _command(topology, side, "verify")
    report.add(GROUP, "verify, with a sidecar", "exit code 0, both probes are taken",
               None if code == 0 and text.count("the sidecar took") == 2 else f"{code}: {text}")
    for listener in listeners:
        listener.close()
    # Another table's NAT rule applies first.
    side.run("nft", "-f", "-", given="add table inet others\n"
             "add chain inet others output { type nat hook output priority -150; }\n"
             f"add rule inet others output meta l4proto tcp redirect to :{INBOUND}\n")
    code, text = _command(topology, side, "verify")
    report.add(GROUP, "verify, behind another table's rules", "exit code 1, both probes fail",
               None if code == 1 and text.count("not captured") == 2 else f"{code}: {text}")
    side.run("nft", "delete", "table", "inet", "others")
    for family in FAMILIES:
        side.run("ip", {"IPv4": "-4", "IPv6": "-6"}[family], "route", "delete", "default")


def _removed(topology, side):
    said = [side.intercept(topology.binary, "remove") for _ in range(2)]
    left = side.run("nft", "list", "ruleset")
    return f"{said}, {left}" if left or said[0] != said[1] else None


def _command(topology, side, *arguments, wrapper=()):
    """Runs `portcullis intercept` in the namespace of `side`; returns its exit code and its output."""
    command = ["ip", "netns", "exec", side.name, *map(str, wrapper), topology.binary, "intercept", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=60, text=True)
    return done.returncode, done.stdout
