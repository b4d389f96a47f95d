"""Policies, certificates and roots that change under load."""

import pathlib
import time

from rig.certificates import CLIENT, SERVER, Authority

from .world import Result, World, get, metric, replace, until

CYCLE = ("STRICT", "DISABLE", "STRICT", "PERMISSIVE", "DISABLE", "PERMISSIVE")


def policy_flips(context):
    """Plaintext carries nothing later than 1 s after STRICT; mTLS is never cut, nor refused where it is terminated."""
    result = Result("100 policy flips under load")
    with World(context, mode="PERMISSIVE") as world:
        live = world.load("streams", count=20, interval=50)
        mtls = world.load("exchange", rate=40)
        plain_live = world.load("streams", "direct", count=20, interval=50)
        plain = world.load("exchange", "direct", rate=40)
        time.sleep(0.5)
        slowest, looked, previous = 0, 0, "PERMISSIVE"
        for flip in range(100):
            mode = CYCLE[flip % len(CYCLE)]
            if previous == "STRICT":
                world.app.ask("allow p")
            if mode == "STRICT":
                plain_live.ask("may"), plain.ask("may")
            if mode == "DISABLE":
                # What is mTLS reaches the app as it is, and means nothing to it.
                mtls.ask("may")
            written = "PERMISSIVE" if context.sabotage and mode == "STRICT" else mode
            slowest = max(slowest, world.set_mode(written))
            if mode != "DISABLE":
                mtls.ask("must")
            if mode != "STRICT":
                plain_live.ask("must"), plain.ask("must")
            if mode == "STRICT" and (not context.short or flip % 18 == 0):
                time.sleep(1)
                world.app.ask("forbid p")
                time.sleep(0.3)
                looked += 1
            else:
                time.sleep(context.either(0.03, 0.5))
            previous = mode
        app = world.tags("p")
        live, mtls, plain_live, plain = (load.ask("stop", 60) for load in (live, mtls, plain_live, plain))
        seen = world.tags("m")
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
    """New certificates at both ends under load fail nothing; policies and credentials do not hinder each other."""
    rounds, rate = context.either(100, 500), 300
    result = Result(f"{rounds} rotations under {rate} connections/s")
    with World(context, relay="truncate" if context.sabotage else None) as world:
        load = world.load("exchange", rate=rate, up=500, down=1000)
        live = world.load("streams", count=20)
        slowest = 0
        for number in range(rounds):
            name = ("cart", "web")[number % 2]
            if number == rounds // 4:
                world.cart.policy = "spec: [not a policy"
                world.cart.write_policy()
                typo = until(lambda: metric(world.cart, 'portcullis_policy_reload_total{result="error"') > 0, 8)
            if number == rounds // 2:
                world.set_mode("STRICT")
                replace(pathlib.Path(world.leaf["cart"].certificate), b"no certificate\n")
                garbage = until(lambda: metric(world.cart, 'portcullis_credentials_reload_total{result="error"') > 0, 8)
                other_way = world.set_mode("STRICT")
                # The policies that were changed meanwhile were in force; what follows repairs the certificate.
            slowest = max(slowest, world.rotate(name))
        generations = [metric(sidecar, "portcullis_credentials_generation") for sidecar in (world.cart, world.web)]
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
        result.claim("a typo in a policy was told, and rotation went on", typo, "True", typo)
        result.claim("a bad certificate was told, and a policy went into force", garbage and other_way > 0, "True",
                     garbage and other_way > 0)
        result.figure("p99 of connections", f"{load['p99_us'] / 1000:.0f} ms")
        result.figure("first reasons", str(load["reasons"][:3]))
    return result


def trust_change(context):
    """A root that leaves the bundle takes its connections with it, at both ends; one that joins takes none."""
    result = Result("trust change closes live connections")
    with World(context) as world:
        old = world.folder / "ca" / "root-cert.pem"
        second = Authority.portcullis(world.folder / "ca2", context.binary)
        third = Authority.portcullis(world.folder / "ca3", context.binary)
        both = world.folder / "both.pem"
        both.write_bytes(old.read_bytes() + second.root.read_bytes())
        load = world.load("streams", count=50, reopen=0)
        held = until(lambda: world.tags()["open"] == 50, 10)
        result.claim("streams held", 50, "50", held)
        for name, spiffe in (("cart", SERVER), ("web", CLIENT)):
            leaf = world.authority.issue(world.folder / f"{name}-overlap", spiffe)
            world.in_force(getattr(world, name), "credentials", lambda: world.write_leaf(name, leaf, both))
        for name, spiffe in (("cart", SERVER), ("web", CLIENT)):
            leaf = second.issue(world.folder / f"{name}-second", spiffe)
            world.in_force(getattr(world, name), "credentials", lambda: world.write_leaf(name, leaf, both))
        time.sleep(0.5)
        result.claim("open after a root has joined and the leaves changed", load.ask()["open"], "50",
                     load.ask()["open"] == 50)
        load.ask("may")
        bundle = pathlib.Path(world.leaf["cart"].certificate).with_name("ca.pem")
        new = both.read_bytes() + b"\n" if context.sabotage else second.root.read_bytes()
        began = time.monotonic()
        world.in_force(world.cart, "credentials", lambda: replace(bundle, new))
        closed_within(result, world, load, began, "after the old root has left the server's bundle")
        again = world.load("streams", count=50, reopen=0)
        held = until(lambda: world.tags()["open"] == 50, 10)
        result.claim("new streams under the new root", again.ask()["open"], "50", held)
        again.ask("may")
        leaf = third.issue(world.folder / "web-third", CLIENT)
        began = time.monotonic()
        world.in_force(world.web, "credentials", lambda: world.write_leaf("web", leaf))
        closed_within(result, world, again, began, "after the new root has left the client's bundle")
        for sidecar in (world.cart, world.web):
            page = get(sidecar.admin, "/stats/prometheus")[1]
            result.some(f'{sidecar.name}: closed with reason "trust_changed"', sum(
                int(line.rsplit(" ", 1)[1]) for line in page.splitlines() if 'reason="trust_changed"' in line))
    return result


def closed_within(result, world, load, began, what):
    """Counted from the moment that the first file was written."""
    gone = until(lambda: world.tags()["open"] == 0 and load.ask()["open"] == 0, 2)
    took = time.monotonic() - began
    said = load.ask()
    result.claim(f"both ends closed {what}", f"{took * 1000:.0f} ms", "< 1000 ms", gone and took < 1)
    result.claim("told as resets, not as ends", said["failed"], "0", said["failed"] == 0 or not gone)
