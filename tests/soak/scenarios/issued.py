"""Certificates that an authority hands out: renewed all the time, below another root, and across trust domains."""

import pathlib
import shutil
import signal
import time

from rig.certificates import CLIENT, SERVER
from rig.processes import RigError, run

from .authority import IssuedMesh, RunningAuthority, shown_serial
from .mesh import Result, metric, replace, until

RATE = 300
# The longest time until no valid certificate of a minute is left under the old root, with a margin.
ENDED = 150


def renewals(context):
    """Both ends renew every second, and no connection fails."""
    seconds = context.either(15, 120)
    result = Result(f"renewal every second under {RATE} connections/s")
    with IssuedMesh(context, relay="truncate" if context.sabotage else None) as mesh:
        if context.sabotage:
            mesh.ca.process.kill()
        load, live = loads(mesh)
        before = {spiffe: set(mesh.ca.issued(spiffe)) for spiffe in (SERVER, CLIENT)}
        began, shown = time.monotonic(), []
        for second in range(seconds):
            for sidecar in (mesh.cart, mesh.web):
                sidecar.process.send_signal(signal.SIGHUP)
            time.sleep(max(0, began + second + 0.9 - time.monotonic()))
            shown.append(shown_serial(mesh.direct))
            time.sleep(max(0, began + second + 1 - time.monotonic()))
        load, live = load.ask("stop", 60), live.ask("stop", 60)
        least = int(seconds * 0.9)
        result.figure("seconds", f"{load['seconds']:.0f}")
        for name, spiffe in (("cart", SERVER), ("web", CLIENT)):
            serials = set(mesh.ca.issued(spiffe, "svid")) - before[spiffe]
            result.claim(f"{name}: serial numbers in the audit, by certificate", len(serials), f">= {least}", len(serials) >= least)
        # The last certificate may still be in flight.
        last = until(lambda: mesh.serial(mesh.web) == mesh.ca.issued(CLIENT)[-1], 5)
        result.claim("web: the last one is in force", last, "True", last)
        known = set(mesh.ca.issued(SERVER))
        result.claim("cart: of them shown in handshakes, looked at once a second", len(set(shown)), f">= {least}",
                     len(set(shown)) >= least)
        result.zero("cart: shown and not in the audit", len(set(shown) - known))
        result.zero("renewals that failed", sum(metric(sidecar, 'portcullis_identity_renewals_total{result="error"')
                                                for sidecar in (mesh.cart, mesh.web)))
        outcome(result, mesh, load, live)
    return result


def root_rotation(context):
    """From one root to another under load, with the authority killed in every phase."""
    result = Result(f"another root under {RATE} connections/s, the authority killed in each phase")
    with IssuedMesh(context) as mesh:
        ca = mesh.ca
        load, live = loads(mesh)
        # Streams that outlive the certificates of their handshake: `finish` closes them.
        outlasts = mesh.load("streams", count=5, reopen=0, expect="may")
        time.sleep(1)
        ca.kill()
        if context.sabotage:
            at_once(mesh)
        else:
            ca.ask("rotate-root", "start")
            ca.kill()
            result.figure("promoted after", f"{ca.step('promote'):.1f} s")
            missing = {waited["id"] for waited in ca.rotation_status()["behind"] if waited["lack"] != "certificate"}
            result.claim("workloads that have not reported that they trust both", sorted(missing), "none",
                         not missing)
            ca.kill()
            mesh.renewed()
            below_new(result, mesh, "promoted, renewed")
            later = mesh.load("streams", count=20)
            time.sleep(1)
            live = live.ask("stop", 60)
            ca.kill()
            result.figure("finished after", f"{ca.step('finish', ENDED):.1f} s")
            phase = ca.rotation_status()["phase"]
            result.claim("phase", phase, "none", phase == "none")
            ca.kill()
            mesh.renewed()
            gone = until(lambda: outlasts.ask()["open"] == 0, 5)
            said = outlasts.ask()
            result.claim("streams of certificates below the old root, closed when it has gone", said["excused"], "5",
                         gone and said["excused"] == 5)
            below_new(result, mesh, "finished, renewed")
            later = later.ask("stop", 60)
            result.zero("streams of certificates below the new root, cut", later["failed"] + later["excused"])
            result.some("of them at the end", later["ok"])
        time.sleep(1)
        result.figure("times that the authority was killed and started again", ca.kills)
        outcome(result, mesh, load.ask("stop", 60), live if isinstance(live, dict) else live.ask("stop", 60))
    return result


PARTNER = "partner.example"
FOREIGN_SERVER = f"spiffe://{PARTNER}/ns/shop/sa/cart"


class TwoDomains(IssuedMesh):
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

    def update_partner(self):
        """Gives our current roots to the other domain; returns when all of its workloads use them."""
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
    """Two authorities, each with its own domain and roots; one of them changes its root without an interruption."""
    result = Result(f"two trust domains under {RATE} connections/s, one gets another root")
    with TwoDomains(context) as mesh:
        load, live = loads(mesh)
        mesh.ca.step("start")
        if not context.sabotage:
            result.figure("the other domain's workload trusts both roots after", f"{mesh.update_partner():.1f} s")
        result.figure("promoted after", f"{mesh.ca.step('promote'):.1f} s")
        mesh.renewed()
        time.sleep(1)
        result.claim("web's certificate in force is the last that was issued",
                     mesh.serial(mesh.web) == mesh.ca.issued(CLIENT)[-1], "True",
                     mesh.serial(mesh.web) == mesh.ca.issued(CLIENT)[-1])
        if not context.short:
            later, live = live, mesh.load("streams", count=20)
            later = later.ask("stop", 60)
            result.zero("streams of certificates below the old root, cut", later["failed"] + later["excused"])
            result.figure("finished after", f"{mesh.ca.step('finish', ENDED):.1f} s")
            mesh.update_partner()
            mesh.renewed()
            time.sleep(1)
        outcome(result, mesh, load.ask("stop", 60), live.ask("stop", 60))
    return result


def at_once(mesh):
    """A fault: replaces the CA's files with another CA's, without a rotation."""
    other = mesh.folder / "other"
    run([mesh.context.binary, "ca", "init", "--dir", other])
    before = pathlib.Path(mesh.ca.folder / "root-cert.pem").read_bytes()
    for name in ("root-cert.pem", "cert-chain.pem", "ca-key.pem", "ca-cert.pem"):
        shutil.copy(other / name, mesh.ca.folder / name)
    copied = pathlib.Path(mesh.ca.identity(SERVER)["ca"]["trustBundle"])
    until(lambda: copied.read_bytes() != before, 10)
    mesh.renewed()


def below_new(result, mesh, when):
    """Both certificates in force come from the CA that signs now."""
    fine = all(mesh.serial(sidecar) in mesh.ca.issued(spiffe)[-2:]
               for sidecar, spiffe in ((mesh.cart, SERVER), (mesh.web, CLIENT)))
    result.claim(f"{when}: certificates in force are the last that were issued", fine, "True", fine)


def loads(mesh):
    load = mesh.load("exchange", rate=RATE, up=500, down=1000)
    live = mesh.load("streams", count=20)
    until(lambda: mesh.tags()["open"] >= 20, 10)
    return load, live


def outcome(result, mesh, load, live):
    """The claims about connections that every scenario here makes."""
    app, secured = mesh.tags(), mesh.secured()
    result.figure("connections/s reached", f"{load['ok'] / load['seconds']:.0f}")
    result.some("connections", load["ok"])
    result.zero("connections failed", load["failed"] + load["excused"])
    result.zero("connections not tried", load["skipped"])
    result.claim("streams held", live["ok"], "20", live["ok"] == 20)
    result.zero("streams cut", live["failed"] + live["excused"])
    result.zero("corrupt or short at the app", app["corrupt"] + app["short"])
    plain = {policy: count for policy, count in secured.items() if policy != "mutual_tls"}
    result.some("connections with mutual TLS, as cart counts", secured.get("mutual_tls", 0))
    # A handshake without a certificate was refused and is not counted here.
    result.claim("any others that cart let in", plain or "none", "none", not plain)
    result.figure("p99 of connections", f"{load['p99_us'] / 1000:.0f} ms")
    result.figure("first reasons", str((load["reasons"] + live["reasons"])[:3]))
    result.figure("what the sidecars refused or ended, by reason", mesh.refusals() or "nothing")
