"""The files of a release: two runs, and what is in each of them."""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

from rig.processes import RigError, run as tool

ROOT = pathlib.Path(__file__).resolve().parents[3]
CYCLONEDX = "cyclonedx-python-lib[json-validation]==11.12.0"
EXPOSURE = 2.0
RELEASE_SECONDS = 600
UNITS = ("portcullis.service", "portcullis-ca.service")


def run(folder, binary, report):
    """Returns the folder with the files."""
    first, second = folder / "first", folder / "second"
    for out in (first, second):
        _release(binary, out)
    group = "two runs"
    sums = [(out / "SHA256SUMS").read_text() for out in (first, second)]
    report.add(group, "the same binary twice", "the same bytes", None if sums[0] == sums[1] else "\n".join(sums))
    tool(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=first)
    kinds = sorted(re.sub(r"\d+\.\d+\.\d+", "VERSION", path.name) for path in first.iterdir())
    wanted = ["SHA256SUMS", "portcullis-VERSION-image.tar.gz", "portcullis-VERSION-x86_64-linux.tar.gz",
              "portcullis-VERSION.cdx.json", "portcullis_VERSION-1_amd64.deb"]
    report.add(group, "files", "five, and the checksums are theirs", None if kinds == wanted else str(kinds))
    _archive(folder, first, binary, report)
    _image(first, report)
    _components(first, report)
    _units(report)
    return first


def _release(binary, out):
    """Compiles what writes the manual pages, where that was not done before."""
    command = [str(ROOT / "scripts/release"), str(binary), str(out)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=RELEASE_SECONDS)
    except subprocess.TimeoutExpired as late:
        raise RigError(f"{' '.join(command)}: not done in {RELEASE_SECONDS} s") from late
    if done.returncode != 0:
        raise RigError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout.decode(errors='replace')[-3000:]}")


def one(folder, pattern):
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise RigError(f"{pattern} in {folder}: {found}")
    return found[0]


def _archive(folder, release, binary, report):
    group = "the files"
    with tarfile.open(one(release, "*-linux.tar.gz")) as archive:
        members = archive.getmembers()
        archive.extractall(folder / "archive", filter="data")
    top = one(folder / "archive", "portcullis-*")
    odd = [member.name for member in members if (member.uid, member.gid) != (0, 0) or member.mode & 0o022
           or member.mtime != members[0].mtime]
    report.add(group, "the archive", "root's, one time, sorted",
               None if not odd and sorted(m.name for m in members) == [m.name for m in members] else str(odd[:5]))
    same = (top / "portcullis").read_bytes() == binary.read_bytes()
    report.add(group, "its binary", "is the one that was given", None if same else "other bytes")
    pages = sorted((top / "man").glob("*.1"))
    complaints = "".join(tool(["groff", "-k", "-man", "-Tutf8", "-ww", "-z", str(page)]) for page in pages)
    report.add(group, f"{len(pages)} manual pages", "without complaints of groff",
               None if len(pages) > 60 and not complaints else f"{len(pages)}: {complaints[:600]}")
    shown = tool(["man", "--local-file", str(top / "man/portcullis-ca-run.1")], env={**os.environ, "MANWIDTH": "100"})
    report.add(group, "man portcullis-ca-run", "has its options and examples",
               None if "--bootstrap" in shown and "portcullis ca run --dir ca --listen 127.0.0.1:15012\n" in shown else shown[-800:])
    bash = top / "completions/portcullis.bash"
    words = tool(["bash", "-c", f"source {bash}; COMP_WORDS=(portcullis proxy-s); COMP_CWORD=1; "
                                "_portcullis portcullis proxy-s portcullis; echo ${COMPREPLY[@]}"])
    report.add(group, "completions of bash", "complete a command", None if words.strip() == "proxy-status" else words)
    paths = [str(ROOT), os.environ.get("CARGO_HOME", str(pathlib.Path.home() / ".cargo"))]
    texts = [path for path in (folder / "archive").rglob("*") if path.is_file()]
    found = [f"{path.name}: {place}" for path in texts for place in paths if place.encode() in path.read_bytes()]
    report.add(group, "paths of this machine", "are in no file", None if not found else "; ".join(found))


def _image(release, report):
    """The archive's own sums; tests/compose loads it into an engine."""
    with tarfile.open(one(release, "*-image.tar.gz")) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        config = archive.extractfile(manifest["Config"]).read()
        layers = [hashlib.sha256(archive.extractfile(layer).read()).hexdigest() for layer in manifest["Layers"]]
    fits = manifest["Config"] == hashlib.sha256(config).hexdigest() + ".json"
    fits &= json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{layer}" for layer in layers]
    report.add("the files", "the image", "its digests fit", None if fits else str(manifest))


def _components(release, report):
    """Against CycloneDX's own schema, and against Cargo.lock."""
    group = "the list of components"
    file = one(release, "*.cdx.json")
    cache = pathlib.Path(os.environ.get("INTEROP_CACHE", ROOT / "target/interop")) / re.sub(r"\W+", "-", CYCLONEDX)
    if not (cache / "cyclonedx").exists():
        tool([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(cache), CYCLONEDX])
    check = ("import sys; from cyclonedx.validation.json import JsonStrictValidator; from cyclonedx.schema import SchemaVersion; "
             "print(JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read()))")
    said = tool([sys.executable, "-c", check, str(file)], env={**os.environ, "PYTHONPATH": str(cache)}).strip()
    report.add(group, "the schema of CycloneDX 1.5", "takes it", None if said == "None" else said[:600])
    document = json.loads(file.read_text())
    linked = {part["name"] for part in document["components"] if part["scope"] == "required"}
    expected = {"rustls", "aws-lc-sys", "tokio", "portcullis-proxy", "glibc"}
    report.add(group, f"{len(linked)} are in the binary", "TLS, runtime, C library; no tool of tests",
               None if expected <= linked and not {"clap_mangen", "criterion", "proptest", "serde_derive"} & linked
               else str(sorted(linked)))


def _units(report):
    group = "the units"
    for unit in UNITS:
        path = str(ROOT / "packaging/systemd" / unit)
        said = tool(["systemd-analyze", "security", "--offline=true", "--no-pager", path])
        exposure = float(re.search(r"Overall exposure level for .*: ([\d.]+)", said)[1])
        report.add(group, f"{unit}: exposure {exposure}", f"below {EXPOSURE}", None if exposure < EXPOSURE else said)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *[str(ROOT / "packaging/systemd" / unit) for unit in UNITS]],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    # The binary is in the package, and not on this machine.
    text = [line for line in done.stdout.splitlines() if "/usr/bin/portcullis is not executable" not in line]
    report.add(group, "systemd-analyze verify", "finds nothing", None if not text else "\n".join(text))
