"""Certificates that an authority hands out: renewed all the time, below another root, and across trust domains."""

import pathlib
import shutil
import signal
import time

from rig.certificates import CLIENT, SERVER
from rig.processes import RigError, run

from .authority import IssuedWorld, RunningAuthority, shown_serial
from .world import Result, metric, replace, until

RATE = 300
# The longest that a certificate of a minute counts for below a root that is to go, with time to spare.
ENDED = 150


def renewals(context):
    """Both ends renew every second, and no connection notices."""
    seconds = context.either(15, 120)
    result = Result(f"renewal every second under {RATE} connections/s")
    with IssuedWorld(context, relay="truncate" if context.sabotage else None) as world:
        if context.sabotage:
            world.ca.process.kill()
        load, live = loads(world)
        before = {spiffe: set(world.ca.issued(spiffe)) for spiffe in (SERVER, CLIENT)}
        began, shown = time.monotonic(), []
        for second in range(seconds):
            for sidecar in (world.cart, world.web):
                sidecar.process.send_signal(signal.SIGHUP)
            time.sleep(max(0, began + second + 0.9 - time.monotonic()))
            shown.append(shown_serial(world.direct))
            time.sleep(max(0, began + second + 1 - time.monotonic()))
        load, live = load.ask("stop", 60), live.ask("stop", 60)
        least = int(seconds * 0.9)
        result.figure("seconds", f"{load['seconds']:.0f}")
        for name, spiffe in (("cart", SERVER), ("web", CLIENT)):
            serials = set(world.ca.issued(spiffe, "svid")) - before[spiffe]
            result.claim(f"{name}: serial numbers in the audit, by certificate", len(serials), f">= {least}", len(serials) >= least)
        # The last answer may still be on its way.
        last = until(lambda: world.serial(world.web) == world.ca.issued(CLIENT)[-1], 5)
        result.claim("web: the last one is in force", last, "True", last)
        known = set(world.ca.issued(SERVER))
        result.claim("cart: of them shown in handshakes, looked at once a second", len(set(shown)), f">= {least}",
                     len(set(shown)) >= least)
        result.zero("cart: shown and not in the audit", len(set(shown) - known))
        result.zero("renewals that failed", sum(metric(sidecar, 'portcullis_identity_renewals_total{result="error"')
                                                for sidecar in (world.cart, world.web)))
        outcome(result, world, load, live)
    return result


def root_rotation(context):
    """From one root to another under load, with the authority killed in every phase."""
    result = Result(f"another root under {RATE} connections/s, the authority killed in each phase")
    with IssuedWorld(context) as world:
        ca = world.ca
        load, live = loads(world)
        # What lives longer than the certificates of its beginning is another matter: see the end.
        outlasts = world.load("streams", count=5, reopen=0, expect="may")
        time.sleep(1)
        ca.kill()
        if context.sabotage:
            at_once(world)
        else:
            ca.ask("rotate-root", "start")
            ca.kill()
            result.figure("promoted after", f"{ca.step('promote'):.1f} s")
            told = {waited["id"] for waited in ca.standing()["behind"] if waited["lack"] != "certificate"}
            result.claim("who has not told that it trusts both", sorted(told), "nobody", not told)
            ca.kill()
            world.renewed()
            below_new(result, world, "promoted, renewed")
            later = world.load("streams", count=20)
            time.sleep(1)
            live = live.ask("stop", 60)
            ca.kill()
            result.figure("finished after", f"{ca.step('finish', ENDED):.1f} s")
            phase = ca.standing()["phase"]
            result.claim("phase", phase, "none", phase == "none")
            ca.kill()
            world.renewed()
            gone = until(lambda: outlasts.ask()["open"] == 0, 5)
            said = outlasts.ask()
            result.claim("streams of certificates below the old root, closed when it has gone", said["excused"], "5",
                         gone and said["excused"] == 5)
            below_new(result, world, "finished, renewed")
            later = later.ask("stop", 60)
            result.zero("streams of certificates below the new root, cut", later["failed"] + later["excused"])
            result.some("of them at the end", later["ok"])
        time.sleep(1)
        result.figure("times that the authority was killed and started again", ca.kills)
        outcome(result, world, load.ask("stop", 60), live if isinstance(live, dict) else live.ask("stop", 60))
    return result


PARTNER = "partner.example"
FOREIGN_SERVER = f"spiffe://{PARTNER}/ns/shop/sa/cart"


class TwoDomains(IssuedWorld):
    """`web` is of one authority's domain and `cart` of another's; each authority hands out the other's roots too."""

    server = FOREIGN_SERVER

    def __init__(self, context):
        super().__init__(context, expected=FOREIGN_SERVER, cart={"mesh": {"trustDomain": PARTNER}})

    def _identities(self):
        self.ca = RunningAuthority("ca", self, [CLIENT], federated={PARTNER: "partner.pem"})
        self.partner = RunningAuthority("partner", self, [FOREIGN_SERVER], PARTNER, {"cluster.local": "ours.pem"})
        shutil.copy(self.partner.folder / "root-cert.pem", self.ca.folder / "partner.pem")
        shutil.copy(self.ca.folder / "root-cert.pem", self.partner.folder / "ours.pem")
        for authority in (self.ca, self.partner):
            authority.start()
        self.from_authorities({"cart": (self.partner, FOREIGN_SERVER), "web": (self.ca, CLIENT)})
        return {"cart": None, "web": None}

    def tell_partner(self):
        """What the operator of the other domain does; returns when all of its workloads use our roots as they are now."""
        def followed():
            status = self.partner.ask("status")
            return status["bundleDigest"] != before and status["certified"] == status["onCurrentBundles"] == 1

        before = self.partner.ask("status")["bundleDigest"]
        began = time.monotonic()
        replace(self.partner.folder / "ours.pem", self.ca.roots().encode())
        if not until(followed, 20):
            raise RigError(f"the other domain's workloads do not follow: {self.partner.ask('status')}")
        return time.monotonic() - began


def two_domains(context):
    """Two authorities, each with its own domain and roots; one of them changes its root, and nobody notices."""
    result = Result(f"two trust domains under {RATE} connections/s, one gets another root")
    with TwoDomains(context) as world:
        load, live = loads(world)
        world.ca.step("start")
        if not context.sabotage:
            result.figure("the other domain's workload trusts both roots after", f"{world.tell_partner():.1f} s")
        result.figure("promoted after", f"{world.ca.step('promote'):.1f} s")
        world.renewed()
        time.sleep(1)
        result.claim("web's certificate in force is the last that was issued",
                     world.serial(world.web) == world.ca.issued(CLIENT)[-1], "True",
                     world.serial(world.web) == world.ca.issued(CLIENT)[-1])
        if not context.short:
            later, live = live, world.load("streams", count=20)
            later = later.ask("stop", 60)
            result.zero("streams of certificates below the old root, cut", later["failed"] + later["excused"])
            result.figure("finished after", f"{world.ca.step('finish', ENDED):.1f} s")
            world.tell_partner()
            world.renewed()
            time.sleep(1)
        outcome(result, world, load.ask("stop", 60), live.ask("stop", 60))
    return result


def at_once(world):
    """A fault: another CA's files in place of ours, as one would without a rotation."""
    other = world.folder / "other"
    run([world.context.binary, "ca", "init", "--dir", other])
    before = pathlib.Path(world.ca.folder / "root-cert.pem").read_bytes()
    for name in ("root-cert.pem", "cert-chain.pem", "ca-key.pem", "ca-cert.pem"):
        shutil.copy(other / name, world.ca.folder / name)
    copied = pathlib.Path(world.ca.identity(SERVER)["ca"]["trustBundle"])
    until(lambda: copied.read_bytes() != before, 10)
    world.renewed()


def below_new(result, world, when):
    """Both certificates in force come from the CA that signs now."""
    fine = all(world.serial(sidecar) in world.ca.issued(spiffe)[-2:]
               for sidecar, spiffe in ((world.cart, SERVER), (world.web, CLIENT)))
    result.claim(f"{when}: certificates in force are the last that were issued", fine, "True", fine)


def loads(world):
    load = world.load("exchange", rate=RATE, up=500, down=1000)
    live = world.load("streams", count=20)
    until(lambda: world.tags()["open"] >= 20, 10)
    return load, live


def outcome(result, world, load, live):
    """What every scenario here has to say of its connections."""
    app, secured = world.tags(), world.secured()
    result.figure("connections/s reached", f"{load['ok'] / load['seconds']:.0f}")
    result.some("connections", load["ok"])
    result.zero("connections failed", load["failed"] + load["excused"])
    result.zero("connections not tried", load["skipped"])
    result.claim("streams held", live["ok"], "20", live["ok"] == 20)
    result.zero("streams cut", live["failed"] + live["excused"])
    result.zero("corrupt or short at the app", app["corrupt"] + app["short"])
    plain = {policy: count for policy, count in secured.items() if policy != "mutual_tls"}
    result.some("connections with mutual TLS, as cart counts", secured.get("mutual_tls", 0))
    # What was looked at without a certificate was refused, and is none.
    result.claim("any others that cart let in", plain or "none", "none", not plain)
    result.figure("p99 of connections", f"{load['p99_us'] / 1000:.0f} ms")
    result.figure("first reasons", str((load["reasons"] + live["reasons"])[:3]))
    result.figure("what the sidecars refused or ended, by reason", world.refusals() or "nothing")
