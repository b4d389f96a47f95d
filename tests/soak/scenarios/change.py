"""Policies, certificates and roots that change under load."""

import pathlib
import time

from rig.certificates import CLIENT, SERVER, Authority

from .mesh import Result, Mesh, get, metric, replace, until

CYCLE = ("STRICT", "DISABLE", "STRICT", "PERMISSIVE", "DISABLE", "PERMISSIVE")


def policy_flips(context):
    """Plaintext carries nothing later than 1 s after STRICT; mTLS is never cut, nor refused where it is terminated."""
    result = Result("100 policy flips under load")
    with Mesh(context, mode="PERMISSIVE") as mesh:
        live = mesh.load("streams", count=20, interval=50)
        mtls = mesh.load("exchange", rate=40)
        plain_live = mesh.load("streams", "direct", count=20, interval=50)
        plain = mesh.load("exchange", "direct", rate=40)
        time.sleep(0.5)
        slowest, looked, previous = 0, 0, "PERMISSIVE"
        for flip in range(100):
            mode = CYCLE[flip % len(CYCLE)]
            if previous == "STRICT":
                mesh.app.ask("allow p")
            if mode == "STRICT":
                plain_live.ask("may"), plain.ask("may")
            if mode == "DISABLE":
                # Under DISABLE the app receives the TLS bytes, which it cannot read.
                mtls.ask("may")
            written = "PERMISSIVE" if context.sabotage and mode == "STRICT" else mode
            slowest = max(slowest, mesh.set_mode(written))
            if mode != "DISABLE":
                mtls.ask("must")
            if mode != "STRICT":
                plain_live.ask("must"), plain.ask("must")
            if mode == "STRICT" and (not context.short or flip % 18 == 0):
                time.sleep(1)
                mesh.app.ask("forbid p")
                time.sleep(0.3)
                looked += 1
            else:
                time.sleep(context.either(0.03, 0.5))
            previous = mode
        app = mesh.tags("p")
        live, mtls, plain_live, plain = (load.ask("stop", 60) for load in (live, mtls, plain_live, plain))
        seen = mesh.tags("m")
        result.figure("flips", 100)
        result.figure("slowest from file to force", f"{slowest * 1000:.0f} ms")
        result.figure("times that STRICT was looked at after 1 s", looked)
        result.zero("plaintext bytes at the app then", app["violations"])
        result.some("plaintext connections that STRICT cut or refused", plain_live["excused"] + plain["excused"])
        result.some("mTLS exchanges", mtls["ok"])
        result.zero("mTLS exchanges failed, or cut at any time", mtls["failed"] + mtls["broken"])
        result.claim("mTLS streams held through all flips", live["ok"], "20", live["ok"] == 20)
        result.zero("mTLS streams cut", live["failed"] + live["excused"])
        result.some("plaintext exchanges", plain["ok"])
        result.zero("plaintext failed under PERMISSIVE or DISABLE", plain["failed"] + plain_live["failed"])
        result.zero("corrupt at the app", app["corrupt"] + seen["corrupt"])
        result.figure("first reasons", str((mtls["reasons"] + plain["reasons"] + plain_live["reasons"])[:3]))
    return result


def rotation(context):
    """New certificates at both ends under load fail no connection; a bad policy or certificate does not block reloads of the other."""
    rounds, rate = context.either(100, 500), 300
    result = Result(f"{rounds} rotations under {rate} connections/s")
    with Mesh(context, relay="truncate" if context.sabotage else None) as mesh:
        load = mesh.load("exchange", rate=rate, up=500, down=1000)
        live = mesh.load("streams", count=20)
        slowest = 0
        for number in range(rounds):
            name = ("cart", "web")[number % 2]
            if number == rounds // 4:
                mesh.cart.policy = "spec: [not a policy"
                mesh.cart.write_policy()
                typo = until(lambda: metric(mesh.cart, 'portcullis_policy_reload_total{result="error"') > 0, 8)
            if number == rounds // 2:
                mesh.set_mode("STRICT")
                replace(pathlib.Path(mesh.leaf["cart"].certificate), b"no certificate\n")
                garbage = until(lambda: metric(mesh.cart, 'portcullis_credentials_reload_total{result="error"') > 0, 8)
                other_way = mesh.set_mode("STRICT")
                # Policies changed meanwhile were in force; the next rotation repairs the certificate.
            slowest = max(slowest, mesh.rotate(name))
        generations = [metric(sidecar, "portcullis_credentials_generation") for sidecar in (mesh.cart, mesh.web)]
        load, live = load.ask("stop", 60), live.ask("stop", 60)
        reached = load["ok"] / load["seconds"]
        result.claim("sets in force at both ends", sum(generations), f">= {rounds + 2}", sum(generations) >= rounds + 2)
        result.figure("a minute", f"{60 * rounds / load['seconds']:.0f}")
        result.figure("slowest from file to force", f"{slowest * 1000:.0f} ms")
        result.figure("connections/s reached", f"{reached:.0f}")
        result.some("connections", load["ok"])
        result.zero("connections failed", load["failed"] + load["excused"])
        result.zero("connections not tried", load["skipped"])
        result.zero("streams cut", live["failed"] + live["excused"])
        result.claim("a typo in a policy was reported, and rotation went on", typo, "True", typo)
        result.claim("a bad certificate was reported, and a policy went into force", garbage and other_way > 0, "True",
                     garbage and other_way > 0)
        result.figure("p99 of connections", f"{load['p99_us'] / 1000:.0f} ms")
        result.figure("first reasons", str(load["reasons"][:3]))
    return result


def trust_change(context):
    """A root that leaves the bundle takes its connections with it, at both ends; one that joins takes none."""
    result = Result("trust change closes live connections")
    with Mesh(context) as mesh:
        old = mesh.folder / "ca" / "root-cert.pem"
        second = Authority.portcullis(mesh.folder / "ca2", context.binary)
        third = Authority.portcullis(mesh.folder / "ca3", context.binary)
        both = mesh.folder / "both.pem"
        both.write_bytes(old.read_bytes() + second.root.read_bytes())
        load = mesh.load("streams", count=50, reopen=0)
        held = until(lambda: mesh.tags()["open"] == 50, 10)
        result.claim("streams held", 50, "50", held)
        for name, spiffe in (("cart", SERVER), ("web", CLIENT)):
            leaf = mesh.authority.issue(mesh.folder / f"{name}-overlap", spiffe)
            mesh.in_force(getattr(mesh, name), "credentials", lambda: mesh.write_leaf(name, leaf, both))
        for name, spiffe in (("cart", SERVER), ("web", CLIENT)):
            leaf = second.issue(mesh.folder / f"{name}-second", spiffe)
            mesh.in_force(getattr(mesh, name), "credentials", lambda: mesh.write_leaf(name, leaf, both))
        time.sleep(0.5)
        result.claim("open after a root has joined and the leaves changed", load.ask()["open"], "50",
                     load.ask()["open"] == 50)
        load.ask("may")
        bundle = pathlib.Path(mesh.leaf["cart"].certificate).with_name("ca.pem")
        new = both.read_bytes() + b"\n" if context.sabotage else second.root.read_bytes()
        began = time.monotonic()
        mesh.in_force(mesh.cart, "credentials", lambda: replace(bundle, new))
        closed_within(result, mesh, load, began, "after the old root has left the server's bundle")
        again = mesh.load("streams", count=50, reopen=0)
        held = until(lambda: mesh.tags()["open"] == 50, 10)
        result.claim("new streams under the new root", again.ask()["open"], "50", held)
        again.ask("may")
        leaf = third.issue(mesh.folder / "web-third", CLIENT)
        began = time.monotonic()
        mesh.in_force(mesh.web, "credentials", lambda: mesh.write_leaf("web", leaf))
        closed_within(result, mesh, again, began, "after the new root has left the client's bundle")
        for sidecar in (mesh.cart, mesh.web):
            page = get(sidecar.admin, "/stats/prometheus")[1]
            result.some(f'{sidecar.name}: closed with reason "trust_changed"', sum(
                int(line.rsplit(" ", 1)[1]) for line in page.splitlines() if 'reason="trust_changed"' in line))
    return result


def closed_within(result, mesh, load, began, what):
    """Counted from the moment that the first file was written."""
    gone = until(lambda: mesh.tags()["open"] == 0 and load.ask()["open"] == 0, 2)
    took = time.monotonic() - began
    said = load.ask()
    result.claim(f"both ends closed {what}", f"{took * 1000:.0f} ms", "< 1000 ms", gone and took < 1)
    result.claim("reported as resets, not as ends", said["failed"], "0", said["failed"] == 0 or not gone)
