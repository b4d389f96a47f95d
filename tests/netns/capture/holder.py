"""`portcullis hold --intercept`: the rules first, then nothing that could undo them."""

import pathlib
import socket
import subprocess
import time

from rig.processes import until

from .namespaces import address

GROUP = "portcullis hold"
MANY = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def _started(topology, side, *arguments, wrapper=()):
    command = ["ip", "netns", "exec", side.name, *wrapper, topology.binary, "hold", "--intercept", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _ended(process, seconds=10):
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait(), process.stdout.read()


def _status(process):
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {line.split(":")[0]: line.split(":")[1].split() for line in lines}


def _gave_up(topology, side, check):
    folder = topology.folder / "holder"
    folder.mkdir()
    folder.chmod(0o777)
    path = folder / "holder.sock"
    holder = _started(topology, side, "--announce", path)
    there = until(path.exists, 10)
    check("its socket", "is there once the rules are", None if there else "it is not")
    seen = _status(holder)
    check("user", "1337 in all four", None if set(seen["Uid"]) == set(seen["Gid"]) == {"1337"} else f"{seen['Uid']} {seen['Gid']}")
    check("capabilities in five sets", "none", None if not any(seen[name][0].strip("0") for name in MANY) else str(seen))
    check("no_new_privs, seccomp", "1, 2", None if (seen["NoNewPrivs"], seen["Seccomp"]) == (["1"], ["2"]) else str(seen))
    verified = subprocess.run(["ip", "netns", "exec", side.name, topology.binary, "intercept", "verify"],
                              stdout=subprocess.PIPE, text=True, timeout=30)
    check("intercept verify", "rules as planned", None if "as planned" in verified.stdout else verified.stdout)
    before = sum(map(int, pathlib.Path(f"/proc/{holder.pid}/stat").read_text().split()[13:15]))
    time.sleep(2)
    ticks = sum(map(int, pathlib.Path(f"/proc/{holder.pid}/stat").read_text().split()[13:15])) - before
    check("processor time in two seconds", "less than a tick of 10 ms", None if ticks <= 1 else f"{ticks} ticks")
    holder.terminate()
    code, text = _ended(holder)
    check("SIGTERM", "0", None if code == 0 and "capabilities 0, NoNewPrivs 1, Seccomp 2" in text else f"{code}: {text}")
    side.intercept(topology.binary, "remove")


def _refused(topology, side, check):
    for missing in ("setpcap", "setuid", "setgid", "net_admin"):
        code, text = _ended(_started(topology, side, wrapper=("setpriv", f"--bounding-set=-{missing}")))
        check(f"without CAP_{missing.upper()}", "does not hold, and names it",
              None if code == 77 and missing.upper() in text else f"{code}: {text}")
    side.intercept(topology.binary, "remove")
    with side.listen(9999) as listener, _open(side, listener):
        code, text = _ended(_started(topology, side))
        check("a connection that is older than the rules", "does not hold, and shows it",
              None if code == 1 and "before the redirect rules" in text else f"{code}: {text}")
    side.intercept(topology.binary, "remove")


def _open(side, listener):
    """A connection of this namespace to itself that is not on loopback."""
    with side:
        return socket.create_connection((address("IPv4", side.hosts[0]), listener.getsockname()[1]), timeout=5)


def run(topology):
    side = topology.client

    def check(case, expected, problem):
        topology.report.add(GROUP, case, expected, problem)

    _gave_up(topology, side, check)
    _refused(topology, side, check)
