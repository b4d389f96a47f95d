"""Every byte, half-close and reset is delivered."""

from .mesh import Result, Mesh, until

MB = 1_000_000


def transfer(context):
    """100 MB each way with SHA-256, half-close by either side, resets passed on as resets."""
    size, count = context.either((100 * MB, 1), (100 * MB, 10))
    result = Result("100 MB each way, half-close, resets")
    with Mesh(context, mode="PERMISSIVE", relay="soften" if context.sabotage else None) as mesh:
        for through, label in (("web", "mTLS"), ("direct", "plaintext")):
            load = mesh.load("once", through, kind="duplex", count=count, at_once=2, up=size, down=size).ask("wait", 200)
            rate = load["bytes"] / load["seconds"] / 1e6
            result.claim(f"{label}: both directions at once, checked", f"{load['bytes'] / 1e6:.0f} MB",
                         f"{2 * count * size / 1e6:.0f} MB", load["bytes"] == 2 * count * size)
            result.figure(f"{label}: at", f"{rate:.0f} MB/s")
            result.zero(f"{label}: failed", load["failed"])
        many = context.either(100, 1000)
        for through, tag, label in (("web", "m", "mTLS"), ("direct", "p", "plaintext")):
            early = mesh.load("once", through, kind="early-end", count=many).ask("wait", 120)
            until(lambda: mesh.tags(tag)["open"] == 0, 10)
            app = mesh.tags(tag)
            result.claim(f"{label}: the app ends first, and still gets all", app["done"], many + count,
                         app["done"] == many + count and early["ok"] == many)
            ends = mesh.load("exchange", through, rate=100, up=100, down=70_000)
            until(lambda: ends.ask()["ok"] >= many, 60)
            ends = ends.ask("stop", 60)
            result.claim(f"{label}: ended by the client, and by the app", ends["ok"], f">= {many}, 0 failed",
                         ends["ok"] >= many and ends["failed"] == 0)
            mesh.load("once", through, kind="client-resets", count=many).ask("wait", 60)
            until(lambda: mesh.tags(tag)["open"] == 0, 10)
            resets = mesh.tags(tag)["resets"] - app["resets"]
            result.claim(f"{label}: resets of clients that the app got as resets", resets, many, resets == many)
            mirrored = mesh.load("once", through, kind="app-resets", count=many, up=1000).ask("wait", 60)
            result.claim(f"{label}: resets of the app that clients got as resets", mirrored["ok"], many,
                         mirrored["ok"] == many)
            app = mesh.tags(tag)
            result.zero(f"{label}: corrupt or short at the app", app["corrupt"] + app["short"])
            result.figure(f"{label}: first reasons", str((early["reasons"] + ends["reasons"] + mirrored["reasons"])[:2]))
    return result
