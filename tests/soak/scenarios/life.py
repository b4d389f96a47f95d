"""Shutdown, signals, logs that cannot be written, clock steps, and certificates that expire."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

from rig.certificates import CLIENT, SERVER
from rig.processes import RigError

from .mesh import Result, Mesh, cpu_share, development_build, exit_code, get, metric, replace, until

GRACE = 4
DRAIN = {"drain": {"grace": f"{GRACE}s"}}


def drain(context):
    """SIGTERM cuts no connection shorter than the grace period; the exit code reports cuts; SIGHUP cuts none."""
    result = Result("drain and signals")
    for victim in ("cart", "web"):
        drain_clean(context, result, victim)
    drain_forced(context, result)
    drain_at_once(context, result)
    hangups(context, result)
    first_process(context, result)
    return result


def drain_clean(context, result, victim):
    with Mesh(context, **{victim: DRAIN}) as mesh:
        process = getattr(mesh, victim).process
        # Twenty that live for two seconds each, and many short ones.
        streams = mesh.load("streams", count=20, life=2000, interval=50)
        load = mesh.load("exchange", rate=60)
        time.sleep(3)
        process.send_signal(signal.SIGKILL if context.sabotage else signal.SIGTERM)
        began = time.monotonic()
        # For a second it is unready and still accepts connections.
        for _ in range(20):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.04)
        streams.ask("may"), load.ask("may")
        # The client's sidecar exits once its client is idle.
        time.sleep(0.1)
        load, streams = load.ask("stop", 60), streams.ask("stop", 60)
        code, _ = exit_code(process, GRACE + 3)
        took = time.monotonic() - began
        result.claim(f"{victim}: exit code, with SIGHUPs meanwhile", code, 0, code == 0)
        result.claim(f"{victim}: drained", f"{took:.1f} s", f"< {GRACE} s", took < GRACE)
        result.some(f"{victim}: connections under way", streams["ok"] + load["ok"])
        result.zero(f"{victim}: cut, or refused in the first 0.8 s",
                    streams["failed"] + load["failed"] + streams["broken"] + load["broken"])


def drain_forced(context, result):
    with Mesh(context, cart=DRAIN) as mesh:
        streams = mesh.load("streams", count=10, reopen=0, expect="may")
        until(lambda: mesh.tags()["open"] == 10, 10)
        process = mesh.cart.process
        process.send_signal(signal.SIGTERM)
        code, took = exit_code(process, GRACE + 3)
        result.claim("longer than the grace: exit code", code, 3, code == 3)
        result.claim("longer than the grace: ended", f"{took:.1f} s", f"{GRACE}..{GRACE + 1} s", GRACE - 0.1 < took < GRACE + 1)
        until(lambda: streams.ask()["open"] == 0, 3)
        said = streams.ask()
        result.claim("longer than the grace: reset", said["excused"], 10, said["excused"] == 10 and said["failed"] == 0)


def drain_at_once(context, result):
    with Mesh(context, cart=DRAIN) as mesh:
        mesh.load("streams", count=10, reopen=0, expect="may")
        until(lambda: mesh.tags()["open"] == 10, 10)
        process = mesh.cart.process
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        status, body = get(mesh.cart.admin, "/healthz/ready")
        result.claim("readiness while draining", status, 503, status == 503 and "draining" in body)
        process.send_signal(signal.SIGTERM)
        code, took = exit_code(process, 5)
        result.claim("second signal: exit code", code, 3, code == 3)
        result.claim("second signal: ended", f"{took * 1000:.0f} ms", "< 1000 ms", took < 1)


def hangups(context, result):
    with Mesh(context) as mesh:
        load = mesh.load("exchange", rate=60)
        streams = mesh.load("streams", count=20)
        time.sleep(0.5)
        for _ in range(1000):
            for sidecar in (mesh.cart, mesh.web):
                sidecar.process.send_signal(signal.SIGHUP)
            time.sleep(0.001)
        mesh.rotate("cart")
        load, streams = load.ask("stop", 60), streams.ask("stop", 60)
        alive = mesh.cart.process.poll() is None and mesh.web.process.poll() is None
        result.claim("1,000 SIGHUPs to both: alive", alive, "True", alive)
        result.some("1,000 SIGHUPs: connections meanwhile", load["ok"])
        result.zero("1,000 SIGHUPs: failed", load["failed"] + streams["failed"])


def first_process(context, result):
    """As PID 1 of a namespace."""
    wrapper = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with Mesh(context, cart={**DRAIN, "wrapper": wrapper}) as mesh:
        outer = mesh.cart.process.pid
        inner = int(pathlib.Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])
        said = pathlib.Path(f"/proc/{inner}/status").read_text()
        number = next(line for line in said.splitlines() if line.startswith("NSpid")).split()[-1]
        result.claim("PID 1: its number", number, 1, number == "1")
        # PID 1 adopts an orphaned process.
        subprocess.run(["nsenter", "-t", str(inner), "-p", "sh", "-c", "(sleep 0.2 & ) ; exit 0"], check=True, timeout=10)
        time.sleep(1)
        left = [pid for pid in pathlib.Path(f"/proc/{inner}/task/{inner}/children").read_text().split()
                if "State:\tZ" in pathlib.Path(f"/proc/{pid}/status").read_text()]
        result.zero("PID 1: zombies", len(left))
        load = mesh.load("exchange", rate=60)
        time.sleep(0.5)
        os.kill(inner, signal.SIGHUP)
        load = load.ask("stop", 60)
        os.kill(inner, signal.SIGTERM)
        code, took = exit_code(mesh.cart.process, GRACE + 3)
        result.claim("PID 1: exit code after SIGTERM", code, 0, code == 0)
        result.claim("PID 1: connections", load["ok"], "> 0, none failed", load["ok"] > 0 and load["failed"] == 0)


FULL_DISK = 'mkdir -p "$DISK" && mount -t tmpfs -o size=16k tmpfs "$DISK" && exec "$@" >"$DISK/log" 2>&1'
LOGS = (
    ("a full disk", ("unshare", "--mount", "sh", "-c", FULL_DISK, "sh")),
    ("/dev/full", ("sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh")),
    ("a closed pipe", ("bash", "-c", 'exec "$@" > >(exec true) 2>&1', "sh")),
)


def logs(context):
    """Traffic continues when the log cannot be written."""
    result = Result("logs that cannot be written")
    for label, wrapper in LOGS:
        disk = str(context.folder / "disk")
        change = {"wrapper": wrapper, "env": {**os.environ, "DISK": disk}}
        with Mesh(context, cart=dict(change), web=dict(change), relay="lose" if context.sabotage else None) as mesh:
            load = mesh.load("exchange", rate=100)
            time.sleep(context.either(3, 20))
            swapped = mesh.set_mode("STRICT") > 0
            load = load.ask("stop", 60)
            if label == "a full disk":
                log = pathlib.Path(f"/proc/{mesh.cart.process.pid}/root{disk}/log")
                result.claim("the disk is full", f"{log.stat().st_size} bytes", "16384", log.stat().st_size == 16384)
            result.some(f"{label}: connections", load["ok"])
            result.zero(f"{label}: failed", load["failed"])
            result.claim(f"{label}: alive, and takes policies", swapped, "True",
                         swapped and mesh.cart.process.poll() is None)
    return result


def expiry(context):
    """An expired certificate makes the sidecar unready; a new one makes it ready again."""
    result = Result("own certificate expires while running")
    with Mesh(context) as mesh:
        life = 3600 if context.sabotage else 6
        began = time.time()
        leaf = mesh.authority.sign(mesh.folder / "short", f"URI:{SERVER}", (-1, life / 86400), trust=mesh.authority.root)
        mesh.in_force(mesh.cart, "credentials", lambda: mesh.write_leaf("cart", leaf))
        live = mesh.load("streams", count=5, interval=100)
        load = mesh.load("exchange", rate=30)
        time.sleep(1)
        load.ask("may")
        gone = until(lambda: get(mesh.cart.admin, "/healthz/ready")[0] == 503, life + 4 if life < 100 else 10)
        after = time.time() - began - life
        result.claim("not ready after its end", f"{after:+.1f} s", "-1..+2 s", gone and -1.1 < after < 2)
        status, body = get(mesh.cart.admin, "/healthz/ready")
        result.claim("readiness", f"{status} {body.strip()[:120]}", "503 with the reason", status == 503 and "credentials" in body)
        before = load.ask()
        time.sleep(1)
        during = load.ask()
        page = get(mesh.cart.admin, "/stats/prometheus")[1]
        result.some("handshakes refused", during["excused"] - before["excused"])
        result.claim("admitted without a certificate", during["ok"] - before["ok"], "0", during["ok"] - before["ok"] <= 3)
        result.some('counted with reason "no_identity"', page.count('reason="no_identity"'))
        share = cpu_share(mesh.cart.process.pid, 1)
        result.claim("CPU meanwhile", f"{share:.0f} %", "< 30 %", share < 30)
        mesh.rotate("cart")
        back = until(lambda: get(mesh.cart.admin, "/healthz/ready")[0] == 200, 5)
        result.claim("ready with a new one", back, "True", back)
        load.ask("must")
        before = load.ask()
        time.sleep(1)
        load, live = load.ask("stop", 60), live.ask("stop", 60)
        result.some("admitted again", load["ok"] - before["ok"])
        result.zero("failed before and after", load["failed"])
        result.zero("live streams cut", live["failed"] + live["excused"])
        result.figure("first reasons", str(load["reasons"][:3]))
    return result


def clock(context):
    """Steps of the wall clock: nothing spins, ends or stops renewing."""
    result = Result("clock steps of +25 h and -1 h")
    try:
        library, dynamic = faketime(context), dynamic_build(context)
    except (RigError, subprocess.SubprocessError, OSError) as error:
        result.skipped = str(error).splitlines()[0]
        return result
    step = context.folder / "step"
    # Later than the root's notBefore by more than the later step back.
    step.write_text("+2h")
    env = {**os.environ, "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(step), "FAKETIME_NO_CACHE": "1",
           "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0"}
    # The library reads the step from a file that the sandbox would block.
    change = {"binary": dynamic, "env": env, "sandbox": {"landlock": False}}
    with Mesh(context, cart=dict(change), web=dict(change)) as mesh:
        # Leaves that outlive every step.
        for name, spiffe in (("cart", SERVER), ("web", CLIENT)):
            leaf = mesh.authority.sign(mesh.folder / f"{name}-wide", f"URI:{spiffe}", (-3, 5), trust=mesh.authority.root)
            mesh.in_force(getattr(mesh, name), "credentials", lambda: mesh.write_leaf(name, leaf))
        live = mesh.load("streams", count=20)
        load = mesh.load("exchange", rate=40)
        time.sleep(1)
        before = metric(mesh.cart, 'portcullis_cert_expiry_seconds{resource_name="default"')
        for label, hours in (("+25 h", 25), ("-1 h", -1)):
            if not context.sabotage:
                replace(step, f"+{2 + hours}h".encode())
            time.sleep(context.either(2, 20))
            left = metric(mesh.cart, 'portcullis_cert_expiry_seconds{resource_name="default"')
            moved = (before - left) / 3600
            result.claim(f"{label}: the proxy sees the clock moved by", f"{moved:+.1f} h", f"{hours:+} h",
                         abs(moved - hours) < 0.1)
            for name, spiffe in (("cart", SERVER), ("web", CLIENT)):
                leaf = mesh.authority.sign(mesh.folder / f"{name}{hours}", f"URI:{spiffe}", (-3, 5), trust=mesh.authority.root)
                took = mesh.in_force(getattr(mesh, name), "credentials", lambda: mesh.write_leaf(name, leaf))
                result.figure(f"{label}: {name} renewed in", f"{took * 1000:.0f} ms")
            mesh.set_mode("STRICT")
            idle = mesh.load("streams", count=1, interval=1000)
            load.ask("must")
            share = max(cpu_share(sidecar.process.pid, 2) for sidecar in (mesh.cart, mesh.web))
            result.claim(f"{label}: CPU of the busier, at 40 connections/s", f"{share:.0f} %", "< 60 %", share < 60)
            idle.ask("stop", 30)
        load, live = load.ask("stop", 60), live.ask("stop", 60)
        result.some("connections", load["ok"])
        result.zero("failed", load["failed"])
        result.zero("live streams cut", live["failed"] + live["excused"])
        result.figure("first reasons", str(load["reasons"][:3]))
    return result


def debian(package, folder, wanted):
    """A file from a Debian package, which is unpacked and not installed, so that no service starts."""
    found = next(iter(pathlib.Path(folder).rglob(wanted)), None)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True, timeout=120, capture_output=True)
        archive = next(folder.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True, timeout=60)
        archive.unlink()
        found = next(iter(folder.rglob(wanted)), None)
    if found is None:
        raise RigError(f"{package} has no {wanted}")
    return found


def faketime(context):
    return debian("libfaketime", pathlib.Path("target/soak-tools/faketime").resolve(), "libfaketimeMT.so.1")


def dynamic_build(context):
    """libfaketime needs a dynamically linked binary: PORTCULLIS_DYNAMIC, or a build for the host's libc. The long form takes
    a release. The short form takes what `cargo test` has built: its claims are not about speed, and a release takes minutes."""
    if named := os.environ.get("PORTCULLIS_DYNAMIC"):
        return named
    if context.short:
        return str(development_build("portcullis"))
    subprocess.run(["cargo", "build", "--release", "--quiet", "--locked", "-p", "portcullis"], check=True, timeout=1200)
    folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return str((folder / "release" / "portcullis").resolve())
