"""The operator's view of containers: from the host by the engine, from inside of a sidecar, and the page."""

import json
import pathlib
import subprocess

from .docker import eventually, get


def run(engine, check, project, services):
    """`check(case, expected, problem)`; all sidecars of the project, by the services that they belong to."""
    def listed():
        code, text = _host(engine, "proxy-status", "--docker", "-o", "json")
        names = {item["name"] for item in json.loads(text)["items"]} if code == 0 else set()
        return set(services) <= names, text
    good, text = eventually(listed, 20)
    check("portcullis proxy-status --docker, on the host", "every sidecar answers", None if good else text)
    first = services[0]
    code, text = engine.attempt("exec", engine.container(project, f"{first}-proxy"), "/portcullis", "proxy-status", "-o", "name")
    check(f"docker exec {first}-proxy /portcullis proxy-status", "the sidecar itself", None if code == 0 and first in text else f"{code}: {text}")
    mounts = engine.inspect(engine.container(project, f"{first}-proxy"))["Mounts"]
    folder = next(pathlib.Path(mount["Source"]) for mount in mounts if mount["Destination"].endswith("/ledger"))
    good, files = eventually(lambda: (any(folder.glob("*.ledger")), sorted(path.name for path in folder.iterdir())), 15)
    check("its ledger", "is on disk", None if good else str(files))


def page(check, url, services):
    """The page, published on loopback."""
    def shown():
        status, body = get(url)
        return status == 200 and all(service in body for service in services), status, body[:500]
    good, status, body = eventually(shown, 20)
    check(f"{url}", "shows every service", None if good else f"{status}: {body}")


def _host(engine, *arguments):
    done = subprocess.run([str(engine.binary), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")
