"""What must hold, in groups that can run alone. Each leaves the cluster as it found it."""

import time

from rig.app import exchange

from .bench import A_SECOND, Bench, Writer, peer_authentication

STRICT, PERMISSIVE = "STRICT", "PERMISSIVE"


def run(binary, folder, processes, report, only):
    bench = Bench(binary, folder, processes)
    for name in only or GROUPS:
        GROUPS[name](bench, lambda case, expected, problem, group=name: report.add(group, case, expected, problem))
        bench.clear()


def _within(seen, limit):
    """None if it was seen in time."""
    if seen is None:
        return "never"
    return None if seen <= limit else f"after {seen:.2f} s"


def changes(bench, check):
    sidecar = bench.sidecar("changes")
    sidecar.start(bench.processes)
    over_mtls = bench.client_of(sidecar)
    check("no object: mesh.defaultMode", "plaintext passes", None if sidecar.plaintext() else "refused")
    for name, namespace in (("shop", "shop"), ("mesh", "istio-system")):
        bench.server.apply(peer_authentication(name, STRICT, namespace))
        seen = bench.timed(lambda: not sidecar.plaintext())
        check(f"kubectl apply: STRICT in {namespace}", f"within a second ({seen or 0:.2f} s)", _within(seen, A_SECOND))
        outcome = exchange(over_mtls, size=16)[0]
        check("  and mTLS passes", "echoed", None if outcome == "echoed" else outcome)
        bench.server.kubectl("delete", "peerauthentication", name, "-n", namespace)
        seen = bench.timed(sidecar.plaintext)
        check("kubectl delete", f"within a second ({seen or 0:.2f} s)", _within(seen, A_SECOND))
    bench.server.apply(peer_authentication("foreign", STRICT, "other"))
    bench.server.apply(peer_authentication("z-older", STRICT))
    time.sleep(1.2)
    bench.server.apply(peer_authentication("a-younger", PERMISSIVE))
    time.sleep(1)
    check("creationTimestamp is the age", "the older one holds", "plaintext passes" if sidecar.plaintext() else None)
    bench.server.kubectl("delete", "peerauthentication", "z-older", "a-younger", "-n", "shop")
    seen = bench.timed(sidecar.plaintext)
    check("another namespace's policy", "has no effect", _within(seen, 5))
    sidecar.end()


def invalid(bench, check):
    sidecar = bench.sidecar("invalid")
    sidecar.start(bench.processes)
    bench.server.apply(peer_authentication("one", STRICT))
    bench.timed(lambda: not sidecar.plaintext())
    bad = peer_authentication("one", PERMISSIVE, portLevelMtls={"http": {"mode": "DISABLE"}})
    bench.server.apply(bad)
    check("an object that cannot be read", "is reported", _within(bench.timed(lambda: sidecar.reason() == "invalid-object"), 2))
    check("  its last good version", "stays in force", "plaintext passes" if sidecar.plaintext() else None)
    check("  metric", "stale", None if sidecar.is_stale() else "not stale")
    bench.server.apply(peer_authentication("two", None, selector={"matchLabels": {"app": "interop"}}, mtls={"mode": PERMISSIVE}))
    check("  other objects", "go on", _within(bench.timed(sidecar.plaintext), A_SECOND))
    bench.server.kubectl("delete", "peerauthentication", "two", "-n", "shop")
    bench.server.apply(peer_authentication("one", STRICT, portLevelMtls=None))
    check("corrected", "the problem is gone", _within(bench.timed(lambda: sidecar.reason() is None), 2))
    bench.server.apply(bad)
    bench.timed(lambda: sidecar.reason() == "invalid-object")
    late = bench.sidecar("late")
    late.start(bench.processes, ready=False)
    time.sleep(1)
    ready, why = late.ready()
    check("a new sidecar with it", "serves nothing", None if not ready and "portLevelMtls" in why else f"ready: {ready} {why}")
    bench.server.kubectl("delete", "peerauthentication", "one", "-n", "shop")
    check("  deleted", "ready", _within(bench.timed(lambda: late.ready()[0]), 5))
    late.end()
    sidecar.end()


def away(bench, check):
    copy = bench.folder / "copy"
    sidecar = bench.sidecar("away", startup="last-good", copy=copy)
    sidecar.start(bench.processes)
    bench.server.apply(peer_authentication("shop", STRICT))
    bench.timed(lambda: not sidecar.plaintext())
    bench.timed((copy / "kubernetes.json").exists)
    time.sleep(1.5)
    bench.server.kill()
    check("API server killed: alarm", "unreachable", _within(bench.timed(lambda: sidecar.reason() == "unreachable", 30), 15))
    check("  metric", "stale", None if sidecar.is_stale() else "not stale")
    check("  log", "an error", None if "kept the last good objects in force" in sidecar.log() else "none")
    check("  last good set", "STRICT", "plaintext passes" if sidecar.plaintext() else None)
    check("  readiness", "stays", None if sidecar.ready()[0] else sidecar.ready()[1])
    again = bench.sidecar("again", startup="last-good", copy=copy)
    waits = bench.sidecar("waits")
    for one in (again, waits):
        one.start(bench.processes, ready=False)
    check("restarted with last-good", "ready", _within(bench.timed(lambda: again.ready()[0], 30), 20))
    check("  from the copy", "STRICT", "plaintext passes" if again.plaintext() else None)
    check("  its age", "is shown", None if again.page()["copyWrittenAt"] else "not shown")
    ready, why = waits.ready()
    check("restarted with wait", "not ready, and says why", None if not ready and "API server" in why else f"ready: {ready} {why}")
    check("  its port", "serves nothing", "plaintext passes" if waits.plaintext() else None)
    bench.server.start()
    for one in (sidecar, again, waits):
        seen = bench.timed(lambda one=one: one.ready()[0] and one.reason() is None, 60)
        check(f"API server back: {one.name}", "no problem", _within(seen, 45))
    bench.server.kubectl("delete", "peerauthentication", "shop", "-n", "shop")
    for one in (sidecar, again, waits):
        check(f"  and a change: {one.name}", "arrives", _within(bench.timed(one.plaintext), 2))
        one.end()


def kinds(bench, check):
    sidecar = bench.sidecar("kinds")
    bench.server.kubectl("delete", "crd", "authorizationpolicies.security.istio.io", "--timeout", "30s")
    sidecar.start(bench.processes)
    over_mtls = bench.client_of(sidecar)
    states = {watch["state"] for watch in sidecar.page()["watches"] if watch["kind"] == "AuthorizationPolicy"}
    check("a kind that is missing", "not-installed", None if states == {"not-installed"} else str(states))
    check("  no alarm", "no problem", sidecar.reason())
    bench.install()
    bench.server.apply({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                        "metadata": {"name": "nobody", "namespace": "shop"}, "spec": {}})
    seen = bench.timed(lambda: exchange(over_mtls, size=16)[0] != "echoed", 40)
    check("installed while it runs", "its objects hold", _within(seen, 25))
    bench.server.kubectl("delete", "crd", "authorizationpolicies.security.istio.io", "--timeout", "30s")
    seen = bench.timed(lambda: exchange(over_mtls, size=16)[0] == "echoed", 20)
    check("removed, with its objects", "they are gone", _within(seen, 5))
    bench.install()
    sidecar.end()


def access(bench, check):
    sidecar = bench.sidecar("access")
    sidecar.start(bench.processes)
    bench.server.apply(peer_authentication("shop", STRICT))
    bench.timed(lambda: not sidecar.plaintext())
    bench.server.kubectl("delete", "rolebinding", "portcullis-sidecar", "-n", "shop")
    bench.relay.cut()
    check("RBAC revoked while it runs", "forbidden", _within(bench.timed(lambda: sidecar.reason() == "forbidden", 30), 20))
    check("  last good set", "STRICT", "plaintext passes" if sidecar.plaintext() else None)
    bench.install()
    check("  granted again", "no problem", _within(bench.timed(lambda: sidecar.reason() is None, 60), 45))
    good = (bench.account / "token").read_text()
    bench.write_token("expired.or.wrong")
    bench.relay.cut()
    check("the token is refused", "unauthorized", _within(bench.timed(lambda: sidecar.reason() == "unauthorized", 30), 20))
    check("  last good set", "STRICT", "plaintext passes" if sidecar.plaintext() else None)
    check("  the token", "is not logged", "it is" if good in sidecar.log() or "expired.or.wrong" in sidecar.log() else None)
    bench.write_token(good)
    check("  a new token", "no problem", _within(bench.timed(lambda: sidecar.reason() is None, 60), 45))
    sidecar.end()


def storm(bench, check):
    sidecar = bench.sidecar("storm")
    sidecar.start(bench.processes)
    other = {"selector": {"matchLabels": {"app": "somebody-else"}}}
    bench.server.apply(peer_authentication("shop", STRICT), peer_authentication("busy", PERMISSIVE, **other))
    bench.timed(lambda: not sidecar.plaintext())
    writer, admitted, made, begun = Writer(bench.server), 0, 0, time.monotonic()
    while time.monotonic() - begun < 10:
        made += writer.patch("busy", {**other, "mtls": {"mode": STRICT if made % 2 else PERMISSIVE}})
        if made % 20 == 0:
            admitted += sidecar.plaintext()
        time.sleep(max(0, made / 100 - (time.monotonic() - begun)))
    rate = made / (time.monotonic() - begun)
    check(f"{rate:.0f} changes a second for 10 s", "nothing wrongly admitted", f"{admitted} times" if admitted else None)
    check("  rate", "at least 40 a second", None if rate >= 40 else f"{rate:.0f}")
    sets = sidecar.page()["generation"]
    check(f"  loaded in {sets} sets", "fewer than changes", None if sets < made else "one each")
    writer.patch("shop", {"mtls": {"mode": PERMISSIVE}})
    check("  a change after it", "arrives", _within(bench.timed(sidecar.plaintext), A_SECOND))
    writer.patch("shop", {"mtls": {"mode": STRICT}})
    bench.timed(lambda: not sidecar.plaintext())
    cuts = admitted = 0
    for n in range(40):
        cuts += bool(bench.relay.cut())
        writer.patch("busy", {**other, "mtls": {"mode": STRICT if n % 2 else PERMISSIVE}})
        admitted += sidecar.plaintext()
        time.sleep(0.5)
    check(f"the watch is cut {cuts} times in 20 s", "nothing wrongly admitted", f"{admitted} times" if admitted else None)
    writer.patch("shop", {"mtls": {"mode": PERMISSIVE}})
    check("  a change after it", "arrives", _within(bench.timed(sidecar.plaintext), 3))
    check("  and no problem", "none", sidecar.reason())
    sidecar.end()


def memory(bench, check):
    with_source = bench.sidecar("with")
    with_source.start(bench.processes)
    without = bench.sidecar("without")
    del without.config["kubernetes"]
    without.start(bench.processes)
    time.sleep(3)
    more = with_source.resident() - without.resident()
    check(f"the source holds {more} kB more", "below 2,000 kB", None if more < 2000 else str(more))
    for one in (with_source, without):
        one.end()


GROUPS = {"changes": changes, "invalid": invalid, "away": away, "kinds": kinds, "access": access, "storm": storm, "memory": memory}
