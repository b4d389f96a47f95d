"""The units at work: their confinement, what systemd does to them, and the end of the package."""

import re

from rig.processes import until

from . import story
from .files import one

GROUP = "the units at work"
UNITS = ("portcullis", "portcullis-ca")
ASK = "curl -s --max-time 5 http://localhost:19080/"


def run(machine, release, report):
    _confined(machine, report)
    _reload(machine, report)
    _hangs(machine, report)
    _killed(machine, report)
    _mistake(machine, report)
    _low_port(machine, report)
    _without_authority(machine, report)
    _again(machine, release, report)
    _away(machine, report)


def show(machine, unit, name):
    return machine.run(f"systemctl show {unit} --property={name} --value").strip()


def _confined(machine, report):
    for unit in UNITS:
        pid = show(machine, unit, "MainPID")
        status = dict(re.findall(r"^(\w+):\t(.*)$", machine.run(f"cat /proc/{pid}/status"), re.M))
        seen = {name: status[name] for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
        wanted = {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
        report.add(GROUP, f"{unit}: the process", "no capability, no new privileges, seccomp", None if seen == wanted else str(seen))
        owner = status["Uid"].split()[0]
        report.add(GROUP, f"{unit}: its user", "is 1337", None if owner == "1337" else owner)
        # As systemd sees it: a file system that is not its own cannot be written.
        seen = machine.attempt(f"nsenter --target {pid} --mount -- sh -c 'touch /etc/x /usr/x /var/x 2>&1; ls /home /root 2>&1 | head -3'")[1]
        report.add(GROUP, f"{unit}: /etc, /usr, /var", "read-only", None if seen.count("Read-only file system") == 3 else seen)
        log = machine.run(f"journalctl --unit {unit} --output cat --no-pager")
        line = next((line for line in log.splitlines() if "sandbox" in line), "")
        fine = "WARN" not in line and "seccomp=\"on\"" in line
        report.add(GROUP, f"{unit}: its own sandbox", "is whole inside of the unit's", None if fine else line or log[-500:])
    pid = show(machine, "portcullis", "MainPID")
    seen = machine.attempt(f"nsenter --target {pid} --mount -- ls /var/lib/portcullis/ca")[1]
    report.add(GROUP, "portcullis: the authority's folder", "cannot be seen", None if "ca-key.pem" not in seen else seen)


def _answers(machine, text="hello from app", seconds=15):
    """Whether a request passes both sidecars in time."""
    return until(lambda: text in machine.attempt(ASK)[1], seconds)


def _reload(machine, report):
    before = show(machine, "portcullis", "MainPID")
    machine.run("sed -i s/STRICT/PERMISSIVE/ /etc/portcullis/policies/mesh.yaml && systemctl reload portcullis")
    open_now = until(lambda: "hello" in machine.attempt("curl -s --max-time 5 http://localhost:18080/")[1], 10)
    machine.run("sed -i s/PERMISSIVE/STRICT/ /etc/portcullis/policies/mesh.yaml && systemctl reload portcullis")
    closed = until(lambda: "required" in machine.attempt("curl -s --max-time 5 http://localhost:18080/")[1], 10)
    same = before == show(machine, "portcullis", "MainPID")
    report.add(GROUP, "systemctl reload", "a policy is in force, the process stays",
               None if open_now and closed and same else f"open {open_now}, closed {closed}, same process {same}")


def _hangs(machine, report):
    """A process that stops pings no more, and systemd replaces it. The time is shortened, which the unit of the package does not do."""
    folder = "/run/systemd/system/portcullis.service.d"
    machine.run(f"mkdir -p {folder} && printf '[Service]\\nWatchdogSec=9s\\n' > {folder}/watchdog.conf && "
                "systemctl daemon-reload && systemctl restart portcullis")
    before = show(machine, "portcullis", "MainPID")
    machine.run(f"kill -STOP {before}")
    replaced = until(lambda: show(machine, "portcullis", "MainPID") not in (before, "0"), 60)
    log = machine.run("journalctl --unit portcullis --output cat --no-pager --lines 40")
    ok = replaced and "Watchdog timeout" in log and _answers(machine)
    report.add(GROUP, "a process that hangs", "the watchdog replaces it", None if ok else log[-1500:])
    machine.run(f"rm -r {folder} && systemctl daemon-reload && systemctl restart portcullis")


def _killed(machine, report):
    before = show(machine, "portcullis", "MainPID")
    machine.run(f"kill -KILL {before}")
    replaced = until(lambda: show(machine, "portcullis", "MainPID") not in (before, "0"), 20)
    report.add(GROUP, "a process that is killed", "starts again and serves",
               None if replaced and _answers(machine) else machine.run("systemctl status portcullis --no-pager || true"))


def _mistake(machine, report):
    """Not tried again and again; the reason is in the journal."""
    machine.run("cp /etc/portcullis/config.yaml kept.yaml && echo 'nonsense: 1' >> /etc/portcullis/config.yaml")
    code, _ = machine.attempt("systemctl restart portcullis")
    until(lambda: show(machine, "portcullis", "ActiveState") == "failed", 10)
    state = show(machine, "portcullis", "ActiveState"), show(machine, "portcullis", "ExecMainStatus")
    log = machine.run("journalctl --unit portcullis --output cat --no-pager --lines 15")
    ok = code != 0 and state == ("failed", "78") and "nonsense" in log
    report.add(GROUP, "a mistake in the configuration", "fails once, and the journal names it", None if ok else f"{code} {state} {log}")
    machine.run("cp kept.yaml /etc/portcullis/config.yaml && systemctl reset-failed portcullis && systemctl start portcullis")


def _low_port(machine, report):
    """The lines of the guide's table."""
    folder = "/run/systemd/system/portcullis.service.d"
    machine.run("sed -i 's/:18080\", port: 8080/:443\", port: 8080/; s/127.0.0.1:18080\", mode/127.0.0.1:443\", mode/' "
                "/etc/portcullis/config.yaml")
    code, _ = machine.attempt("systemctl restart portcullis")
    refused = code != 0 and show(machine, "portcullis", "ExecMainStatus") == "77"
    machine.run(f"mkdir -p {folder} && printf '[Service]\\nAmbientCapabilities=CAP_NET_BIND_SERVICE\\n"
                f"CapabilityBoundingSet=CAP_NET_BIND_SERVICE\\nPrivateUsers=no\\n' > {folder}/port.conf && systemctl daemon-reload && "
                "systemctl reset-failed portcullis && systemctl restart portcullis")
    served = _answers(machine)
    report.add(GROUP, "a listener on port 443", "refused, and served with the drop-in of the guide",
               None if refused and served else f"refused {refused}, served {served}")
    machine.run(f"rm -r {folder} && cp kept.yaml /etc/portcullis/config.yaml && systemctl daemon-reload && systemctl restart portcullis")


def _without_authority(machine, report):
    """A start that waits says for what, and ends when it comes."""
    machine.run("systemctl stop portcullis portcullis-ca && systemctl start --no-block portcullis")
    waits = until(lambda: "waiting for" in show(machine, "portcullis", "StatusText"), 20)
    text, state = show(machine, "portcullis", "StatusText"), show(machine, "portcullis", "ActiveState")
    machine.run("systemctl start portcullis-ca")
    ready = until(lambda: show(machine, "portcullis", "ActiveState") == "active", 60)
    ok = waits and state == "activating" and ready and _answers(machine)
    report.add(GROUP, "a start without the authority", f"“{text}”, then ready", None if ok else f"{waits} {state} {ready} {text}")


def _again(machine, release, report):
    group = "again and away"
    machine.run("echo '# mine' >> /etc/portcullis/config.yaml")
    before = show(machine, "portcullis", "MainPID")
    machine.run(f"dpkg --force-confdef --force-confold -i {one(release, '*.deb').name}")
    mine = "# mine" in machine.run("cat /etc/portcullis/config.yaml")
    runs = until(lambda: show(machine, "portcullis", "ActiveState") == "active", 20)
    other = show(machine, "portcullis", "MainPID") != before
    report.add(group, "installed over itself", "keeps edited files, restarts what runs",
               None if mine and runs and other and _answers(machine) else f"mine {mine}, runs {runs}, restarted {other}")


def _away(machine, report):
    group = "again and away"
    (commands, _), = story.blocks("### Uninstall")
    remove, purge = [line.split("#")[0] for line in commands.strip().splitlines()]
    machine.run(remove)
    kept = machine.attempt("ls /etc/portcullis/config.yaml /var/lib/portcullis/ca/ca-key.pem")[0] == 0
    gone = machine.attempt("command -v portcullis; pgrep -u portcullis")[0] != 0
    report.add(group, remove.strip(), "ends the services, keeps configuration and data", None if kept and gone else f"{kept} {gone}")
    machine.run(purge)
    left = sorted(machine.named() - machine.named_before)
    report.add(group, purge.strip(), "leaves nothing", None if not left else "\n".join(left[:20]))
    packages = machine.attempt("dpkg -s portcullis 2>&1")[1]
    report.add(group, "dpkg", "does not know it any more", None if "not installed" in packages else packages)
