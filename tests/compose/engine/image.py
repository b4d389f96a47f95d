"""The contents of the image and its privileges."""

import json
import re
import shutil

from rig.processes import run as tool

from .docker import APPS, IMAGE, ROOT

LARGEST = 19_000_000
GROUP = "The image"
ARCHIVE = "portcullis-test-archive:1.2.3"


def run(engine, report):
    said = tool([str(ROOT / "docker" / "build"), str(engine.binary), IMAGE])
    facts = engine.inspect(IMAGE)
    report.add(GROUP, "docker/build", "says what it made", None if said.startswith(IMAGE) else said)
    report.add(GROUP, f"size, {facts['Size'] / 1e6:.1f} MB", f"at most {LARGEST / 1e6:.0f} MB",
               None if facts["Size"] <= LARGEST else str(facts["Size"]))
    config = facts["Config"]
    wanted = {"User": "1337:1337", "Entrypoint": ["/portcullis"], "Cmd": ["proxy"]}
    seen = {key: config[key] for key in wanted}
    report.add(GROUP, "user, entry point, command", "1337, /portcullis, proxy", None if seen == wanted else str(seen))
    test = config["Healthcheck"]["Test"]
    report.add(GROUP, "health check", "by the binary", None if test == ["CMD", "/portcullis", "healthcheck"] else str(test))
    report.add(GROUP, "the last stage of both Dockerfiles", "is the same", _stages())
    _archive(engine, config, report)
    code, text = engine.attempt("run", "--rm", "--network", "none", IMAGE)
    report.add(GROUP, "run with nothing mounted", "ends, and names the certificate that is missing",
               None if code in (65, 78) and "cert.pem" in text else f"{code}: {text}")
    apps(engine)


def _archive(engine, built, report):
    """What a release has for `docker load` is the same image."""
    file = engine.folder / "image.tar.gz"
    tool([str(ROOT / "packaging/image"), str(engine.binary), ARCHIVE, str(file)])
    said = engine.docker("load", "--input", file)
    loaded = engine.inspect(ARCHIVE)["Config"]
    keys = ("User", "Entrypoint", "Cmd", "Healthcheck", "StopSignal", "Labels", "Env")
    other = {key: (loaded.get(key), built.get(key)) for key in keys if loaded.get(key) != built.get(key)}
    report.add(GROUP, "the archive of a release", "docker load takes it, and it runs as the other does",
               None if f"Loaded image: {ARCHIVE}" in said and not other else f"{said} {json.dumps(other)}")
    files = [engine.docker("run", "--rm", "--network", "none", "--entrypoint", "/portcullis", image, "version", "-o", "json")
             for image in (ARCHIVE, IMAGE)]
    report.add(GROUP, "its binary", "is the same", None if files[0] == files[1] else str(files))
    engine.docker("image", "rm", "--force", ARCHIVE)


def _stages():
    stages = [re.split(r"^FROM scratch$", (ROOT / "docker" / name).read_text(), flags=re.M)[-1]
              for name in ("Dockerfile", "Dockerfile.prebuilt")]
    whole = stages[0].replace("--from=build ", "").replace("/root-of-image/", "")
    return None if whole == stages[1] else f"{whole}\nbut:\n{stages[1]}"


def apps(engine):
    """An image for third-party apps: Debian's static busybox, and nothing else."""
    context = engine.folder / "apps"
    context.mkdir()
    shutil.copy(shutil.which("busybox"), context / "busybox")
    (context / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "/bin"]\n')
    engine.docker("build", "--quiet", "--tag", APPS, context)
