"""Two network namespaces joined by a cable, in which `portcullis intercept` makes its rules.

Processes enter with `ip netns exec`, which also gives them the namespace's own hosts file; sockets of the tests are
made by entering with the thread for a moment, and stay in the namespace where they were made.
"""

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import socket

from rig.processes import RigError, run, until

INBOUND, OUTBOUND = 15006, 15001
# Connections of this user are the sidecar's and are not redirected.
SIDECAR_UID = 1337
# Marks of the tests' own sockets: not redirected, as if there were no sidecar; redirected even to loopback.
DIRECT, EVEN_LOOPBACK = 7, 8

FAMILIES = ("IPv4", "IPv6")
_PREFIX = {"IPv4": ("192.0.2.", 24), "IPv6": ("2001:db8::", 64)}
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


# For the sockets of the tests, in front of the rules that are tested.
MARKS = f"""\
insert rule inet portcullis outbound meta mark {DIRECT} return
insert rule inet portcullis outbound meta mark {EVEN_LOOPBACK} meta l4proto tcp redirect to :{OUTBOUND}
"""


def address(family, host):
    return f"{_PREFIX[family][0]}{host}"


def loopback(family):
    return {"IPv4": "127.0.0.1", "IPv6": "::1"}[family]


def endpoint(host, port):
    """As the log writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Namespace:
    """One side, with the addresses that end in `hosts`."""

    def __init__(self, side, hosts):
        self.name = f"portcullis-test-{side}"
        self.link = f"pct-{side}"
        self.hosts = hosts
        # `ip netns exec` puts the files from here over those in /etc.
        self.etc = pathlib.Path("/etc/netns") / self.name
        self._outside = []

    def __enter__(self):
        self._outside.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(inside)
        except OSError:
            os.close(self._outside.pop())
            raise
        finally:
            os.close(inside)
        return self

    def __exit__(self, *_):
        outside = self._outside.pop()
        try:
            _enter(outside)
        finally:
            os.close(outside)

    def wrapper(self):
        """The command that runs a sidecar here. A change of user clears the parent-death signal,
        so setpriv sets it again."""
        uid = str(SIDECAR_UID)
        return ["ip", "netns", "exec", self.name, "setpriv", "--reuid", uid, "--regid", uid, "--clear-groups",
                "--no-new-privs", "--pdeathsig", "KILL"]

    def connect(self, host, port, mark=0, timeout=5, source=None):
        """A connection from here. Raises what `connect` raises."""
        with self:
            connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            connection.settimeout(timeout)
            if mark:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            if source:
                connection.bind((source, 0))
            connection.connect((host, port))
        except BaseException:
            connection.close()
            raise
        return connection

    def listen(self, port, host="::"):
        """A listener here; `::` takes IPv4 as well."""
        six = ":" in host
        with self:
            return socket.create_server(
                (host, port), family=socket.AF_INET6 if six else socket.AF_INET, dualstack_ipv6=host == "::",
                backlog=64)

    def write_hosts(self, names):
        """The hosts file as it is seen here, in place, since it is bind-mounted: name -> hosts of both families."""
        lines = [f"{address(family, host)} {name}\n" for name, hosts in names.items() for host in hosts
                 for family in FAMILIES]
        (self.etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n" + "".join(lines))

    def route(self, there, via):
        run(["ip", "-n", self.name, "route", "replace", there, "via", via])

    def run(self, *command, given=""):
        """Runs a tool in this namespace; returns its output."""
        return run(["ip", "netns", "exec", self.name, *map(str, command)], given=given)

    @contextlib.contextmanager
    def loopback_through(self, gateway):
        """Routes 127.0.0.1 to a neighbour for as long as the `with` block lasts."""
        for command in (
            f"sysctl -qw net.ipv4.conf.{self.link}.route_localnet=1", "ip rule add pref 100 lookup local",
            "ip rule add pref 50 to 127.0.0.1 lookup 200", f"ip route add 127.0.0.1 via {gateway} table 200",
            "ip rule del pref 0",
        ):
            self.run(*command.split())
        try:
            yield
        finally:
            for command in ("ip rule add pref 0 lookup local", "ip rule del pref 50", "ip rule del pref 100",
                            "ip route flush table 200"):
                self.run(*command.split())

    def intercept(self, binary, *arguments):
        return self.run(binary, "intercept", *arguments)

    def redirect(self, binary):
        self.intercept(binary, "install")
        self.run("nft", "-f", "-", given=MARKS)

    def create(self):
        self.etc.mkdir(parents=True)
        (self.etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self.write_hosts({})
        run(["ip", "netns", "add", self.name])
        # A sidecar must not depend on what the host has set.
        for key in ("all", "default"):
            self.run("sysctl", "-qw", f"net.ipv6.conf.{key}.disable_ipv6=0")

    def plug_in(self):
        run(["ip", "-n", self.name, "link", "set", "lo", "up"])
        for host in self.hosts:
            for family in FAMILIES:
                nodad = ["nodad"] if family == "IPv6" else []
                prefix = f"{address(family, host)}/{_PREFIX[family][1]}"
                run(["ip", "-n", self.name, "address", "add", prefix, "dev", self.link, *nodad])
        run(["ip", "-n", self.name, "link", "set", self.link, "up"])

    def is_up(self):
        """The link comes up a moment after both ends are plugged in; earlier packets are lost."""
        return "state UP" in run(["ip", "-n", self.name, "link", "show", "dev", self.link])

    def remove(self):
        """Removes the namespace and kills the processes in it, even if it was only partly created."""
        shutil.rmtree(self.etc, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.etc.parent.rmdir()
        if not os.path.exists(f"/run/netns/{self.name}"):
            return
        with contextlib.suppress(RigError):
            # Only what a killed run of ours left behind can be in a namespace of this name.
            for pid in run(["ip", "netns", "pids", self.name]).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        run(["ip", "netns", "delete", self.name])


@contextlib.contextmanager
def cable(one, other):
    """Both namespaces, connected, for as long as the `with` block lasts."""
    both = (one, other)
    for namespace in both:
        namespace.remove()
    try:
        for namespace in both:
            namespace.create()
        run(["ip", "link", "add", one.link, "netns", one.name, "type", "veth",
             "peer", "name", other.link, "netns", other.name])
        for namespace in both:
            namespace.plug_in()
        for namespace in both:
            if not until(namespace.is_up, 10):
                raise RigError(f"{namespace.link} does not come up")
        yield
    finally:
        for namespace in both:
            namespace.remove()


def _enter(descriptor):
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")
