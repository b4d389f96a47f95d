"""The contents of the image and its privileges."""

import re
import shutil

from rig.processes import run as tool

from .docker import APPS, IMAGE, ROOT

LARGEST = 17_000_000
GROUP = "The image"


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
    code, text = engine.attempt("run", "--rm", "--network", "none", IMAGE)
    report.add(GROUP, "run with nothing mounted", "ends, and names the certificate that is missing",
               None if code in (65, 78) and "cert.pem" in text else f"{code}: {text}")
    apps(engine)


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
