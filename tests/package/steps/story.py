"""The guide's commands for the package, as they are written in docs/guides/install.md, in the booted machine."""

import re

from rig.processes import RigError

from .files import ROOT, one

GUIDE = ROOT / "docs/guides/install.md"
GROUP = "a minute"
OWNED = {"/var/lib/portcullis": "700 portcullis portcullis", "/etc/portcullis/config.yaml": "644 root root",
         "/etc/portcullis/policies/mesh.yaml": "644 root root", "/usr/bin/portcullis": "755 root root"}


def blocks(heading):
    """The commands below a heading with the lines that they must print, one pair for each block."""
    text = re.search(rf"^{re.escape(heading)}$(.*?)(?=^##|\Z)", GUIDE.read_text(), re.M | re.S)[1]
    fences = re.findall(r"^```(sh|text)\n(.*?)^```$", text, re.M | re.S)
    pairs = []
    for kind, content in fences:
        if kind == "sh":
            pairs.append([content, []])
        else:
            pairs[-1][1] += content.splitlines()
    if not pairs:
        raise RigError(f"{GUIDE}: no commands below {heading}")
    return pairs


def missing(wanted, output):
    """The first line of `wanted` that `output` does not have in this order; `...` is anything, and so is a fraction."""
    lines = iter(output.splitlines())
    for line in wanted:
        pattern = re.sub(r"\d+\\\.\d+", r"\\d+\\.\\d+", re.escape(line.strip())).replace(r"\.\.\.", ".*")
        if not any(re.search(pattern, one_line) for one_line in lines):
            return line
    return None


def follow(machine, heading, report, group=GROUP):
    for commands, wanted in blocks(heading):
        first = commands.splitlines()[0]
        code, output = machine.attempt(commands.replace("\n\n", "\n"))
        lacks = missing(wanted, output)
        problem = None if code == 0 and lacks is None else f"exit code {code}, without {lacks!r}:\n{output[-1500:]}"
        report.add(group, first[:60], "as the guide says", problem)


def run(machine, release, report):
    machine.copy(one(release, "*.deb"))
    machine.run("for file in /root/portcullis_*; do chmod 644 $file; done")
    follow(machine, "## The Debian package", report)
    _installed(machine, report)


def _installed(machine, report):
    group = "the package"
    for path, wanted in OWNED.items():
        seen = machine.attempt(f"stat --format '%a %U %G' {path}")[1].strip()
        report.add(group, path, wanted, None if seen == wanted else seen)
    uid = machine.run("id -u portcullis").strip()
    report.add(group, "the user", "number 1337, which capture leaves out", None if uid == "1337" else uid)
    listed = machine.run("dpkg -L portcullis; dpkg -s portcullis")
    wanted = ["/usr/share/man/man1/portcullis-ca-run.1.gz", "/usr/share/bash-completion/completions/portcullis",
              "/usr/share/zsh/vendor-completions/_portcullis", "/usr/share/fish/vendor_completions.d/portcullis.fish",
              "/usr/share/doc/portcullis/copyright", "/usr/share/doc/portcullis/THIRD-PARTY", "/usr/share/doc/portcullis/sbom.cdx.json"]
    lacks = [path for path in wanted if path not in listed]
    report.add(group, "manual pages, completions, licences", "where Debian looks for them", None if not lacks else str(lacks))
    conffiles = re.findall(r"^ (/etc\S+)", listed, re.M)
    report.add(group, "files of the administrator", "are conffiles",
               None if set(conffiles) == {"/etc/portcullis/config.yaml", "/etc/portcullis/policies/mesh.yaml"} else str(conffiles))
