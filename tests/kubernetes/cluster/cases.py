"""What must hold, in groups that can run alone. Each leaves the cluster as it found it."""

import shutil
import time

from rig.app import exchange

from .bench import A_SECOND, Bench, Writer, peer_authentication

STRICT, PERMISSIVE = "STRICT", "PERMISSIVE"


def run(binary, folder, processes, report, only):
    bench = Bench(binary, folder, processes)
    for name in only or GROUPS:
        GROUPS[name](bench, Check(bench, report, name))
        bench.clear()


class Check:
    """Lines of one group."""

    def __init__(self, bench, report, group):
        self.bench, self.report, self.group = bench, report, group

    def __call__(self, case, expected, problem):
        self.report.add(self.group, case, expected, problem)

    def soon(self, case, expected, condition, limit, patience=20):
        """The condition has to hold within the limit; it is waited for longer, to say how long it took."""
        seen = self.bench.timed(condition, max(patience, limit))
        problem = None if seen is not None and seen <= limit else "late" if seen else "never"
        took = "" if seen is None else f" ({seen:.2f} s)"
        self(case, f"{expected}{took}", problem)


def changes(bench, check):
    sidecar = bench.sidecar("changes")
    sidecar.start(bench.processes)
    over_mtls = bench.client_of(sidecar)
    check("no object: mesh.defaultMode", "plaintext passes", None if sidecar.plaintext() else "refused")
    for name, namespace in (("shop", "shop"), ("mesh", "istio-system")):
        bench.server.apply(peer_authentication(name, STRICT, namespace))
        check.soon(f"kubectl apply: STRICT in {namespace}", "within a second", lambda: not sidecar.plaintext(), A_SECOND)
        outcome = exchange(over_mtls, size=16)[0]
        check("  and mTLS passes", "echoed", None if outcome == "echoed" else outcome)
        bench.server.kubectl("delete", "peerauthentication", name, "-n", namespace)
        check.soon("kubectl delete", "within a second", sidecar.plaintext, A_SECOND)
    bench.server.apply(peer_authentication("foreign", STRICT, "other"))
    bench.server.apply(peer_authentication("z-older", STRICT))
    time.sleep(1.2)
    bench.server.apply(peer_authentication("a-younger", PERMISSIVE))
    time.sleep(1)
    check("creationTimestamp is the age", "the older one holds", "plaintext passes" if sidecar.plaintext() else None)
    bench.server.kubectl("delete", "peerauthentication", "z-older", "a-younger", "-n", "shop")
    check.soon("another namespace's policy", "has no effect", sidecar.plaintext, 5)
    sidecar.end()


def invalid(bench, check):
    sidecar = bench.sidecar("invalid")
    sidecar.start(bench.processes)
    bench.server.apply(peer_authentication("one", STRICT))
    bench.timed(lambda: not sidecar.plaintext())
    bad = peer_authentication("one", PERMISSIVE, portLevelMtls={"http": {"mode": "DISABLE"}})
    bench.server.apply(bad)
    check.soon("an object that cannot be read", "is reported", lambda: sidecar.reason() == "invalid-object", 2)
    check("  its last good version", "stays in force", "plaintext passes" if sidecar.plaintext() else None)
    check("  metric", "stale", None if sidecar.is_stale() else "not stale")
    bench.server.apply(peer_authentication("two", None, selector={"matchLabels": {"app": "interop"}}, mtls={"mode": PERMISSIVE}))
    check.soon("  other objects", "go on", sidecar.plaintext, A_SECOND)
    bench.server.kubectl("delete", "peerauthentication", "two", "-n", "shop")
    bench.server.apply(peer_authentication("one", STRICT, portLevelMtls=None))
    check.soon("corrected", "the problem is gone", lambda: sidecar.reason() is None, 2)
    bench.server.apply(bad)
    bench.timed(lambda: sidecar.reason() == "invalid-object")
    late = bench.sidecar("late")
    late.start(bench.processes, ready=False)
    time.sleep(1)
    ready, why = late.ready()
    check("a new sidecar with it", "serves nothing", None if not ready and "portLevelMtls" in why else f"ready: {ready} {why}")
    bench.server.kubectl("delete", "peerauthentication", "one", "-n", "shop")
    check.soon("  deleted", "ready", lambda: late.ready()[0], 5)
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
    check.soon("API server killed: alarm", "unreachable", lambda: sidecar.reason() == "unreachable", 15, patience=30)
    check("  metric", "stale", None if sidecar.is_stale() else "not stale")
    check("  log", "an error", None if "kept the last good objects in force" in sidecar.log() else "none")
    check("  last good set", "STRICT", "plaintext passes" if sidecar.plaintext() else None)
    check("  readiness", "stays", None if sidecar.ready()[0] else sidecar.ready()[1])
    check("  which it says", "once, not for each watch", None if (errors := sidecar.log().count("ERROR")) == 1 else f"{errors} times")
    # The first one goes on, so that the restarted one gets a folder of its own.
    again = bench.sidecar("again", startup="last-good", copy=shutil.copytree(copy, bench.folder / "copy-of-again"))
    waits = bench.sidecar("waits")
    for one in (again, waits):
        one.start(bench.processes, ready=False)
    check.soon("restarted with last-good", "ready", lambda: again.ready()[0], 20, patience=30)
    check("  from the copy", "STRICT", "plaintext passes" if again.plaintext() else None)
    check("  its age", "is shown", None if again.page()["copyWrittenAt"] else "not shown")
    ready, why = waits.ready()
    check("restarted with wait", "not ready, and says why", None if not ready and "API server" in why else f"ready: {ready} {why}")
    check("  its port", "serves nothing", "plaintext passes" if waits.plaintext() else None)
    bench.server.start()
    for one in (sidecar, again, waits):
        check.soon(f"API server back: {one.name}", "no problem", lambda one=one: one.ready()[0] and one.reason() is None, 45, patience=60)
    bench.server.kubectl("delete", "peerauthentication", "shop", "-n", "shop")
    for one in (sidecar, again, waits):
        check.soon(f"  and a change: {one.name}", "arrives", one.plaintext, 2)
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
    check.soon("installed while it runs", "its objects hold", lambda: exchange(over_mtls, size=16)[0] != "echoed", 25, patience=40)
    bench.server.kubectl("delete", "crd", "authorizationpolicies.security.istio.io", "--timeout", "30s")
    check.soon("removed, with its objects", "they are gone", lambda: exchange(over_mtls, size=16)[0] == "echoed", 5)
    bench.install()
    sidecar.end()


def access(bench, check):
    sidecar = bench.sidecar("access")
    sidecar.start(bench.processes)
    bench.server.apply(peer_authentication("shop", STRICT))
    bench.timed(lambda: not sidecar.plaintext())
    bench.server.kubectl("delete", "rolebinding", "portcullis-sidecar", "-n", "shop")
    check.soon("RBAC revoked", "the server knows", lambda: not bench.may_list(), 5)
    bench.relay.cut()
    check.soon("  while it runs", "forbidden", lambda: sidecar.reason() == "forbidden", 20, patience=30)
    check("  last good set", "STRICT", "plaintext passes" if sidecar.plaintext() else None)
    bench.install()
    lines = sum("forbidden" in line for line in sidecar.log().splitlines())
    check("  which it says", "once", None if lines == 1 else f"{lines} times")
    check.soon("  granted again", "no problem", lambda: sidecar.reason() is None, 45, patience=60)
    good = (bench.account / "token").read_text()
    bench.write_token("expired.or.wrong")
    bench.relay.cut()
    check.soon("the token is refused", "unauthorized", lambda: sidecar.reason() == "unauthorized", 20, patience=30)
    check("  last good set", "STRICT", "plaintext passes" if sidecar.plaintext() else None)
    check("  the token", "is not logged", "it is" if good in sidecar.log() or "expired.or.wrong" in sidecar.log() else None)
    bench.write_token(good)
    check.soon("  a new token", "no problem", lambda: sidecar.reason() is None, 45, patience=60)
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
    check.soon("  a change after it", "arrives", sidecar.plaintext, A_SECOND)
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
    check.soon("  a change after it", "arrives", sidecar.plaintext, 5)
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
