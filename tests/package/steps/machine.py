"""A booted system to install the package on: systemd as PID 1 of a container by systemd-nspawn, without a network."""

import contextlib
import os
import pathlib
import signal
import subprocess
import uuid

from rig import packages
from rig.processes import RigError, run, tail, until

# (tool, Debian package)
TOOLS = {"systemd-nspawn": "systemd-container", "systemctl": "systemd", "nsenter": "util-linux", "man": "man-db", "groff": "groff-base",
         "curl": "curl", "dpkg-deb": "dpkg"}
# Nothing that the machine itself runs: what this needs is asked for.
BOOT = ["systemd.unit=basic.target"]
START_SECONDS = 90
# Where the test puts what it installs, and what is kept of everything that was ever there.
REMEMBERED = ("/root/", "/var/log/", "/var/cache/", "/tmp/")


def has_init():
    return pathlib.Path("/usr/lib/systemd/systemd").exists()


def install_tools():
    packages.install(TOOLS | {has_init: "systemd"})


class Machine:
    """Runs while the `with` block does. What is written in it goes to a folder of its own."""

    def __init__(self, folder, below):
        self.folder = folder / "machine"
        self.below = below
        self.root = self.folder / "root"
        self.process = self.leader = None
        self.log = str(self.folder / "console.log")
        self.named_before = set()

    def __enter__(self):
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True)
        layers = f"lowerdir={self.below},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)])
        try:
            self._boot()
            self.named_before = self.named()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _boot(self):
        # An identity of its own, without which nspawn thinks that it is the host.
        machine_id = self.root / "etc/machine-id"
        machine_id.unlink(missing_ok=True)
        machine_id.write_text(uuid.uuid4().hex + "\n")
        # Tests that install packages on this machine let nothing start.
        (self.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        # A package that was installed here before would not be a test.
        for left in ("etc/portcullis", "var/lib/portcullis"):
            if (self.root / left).exists():
                raise RigError(f"/{left} is on this machine already")
        command = ["systemd-nspawn", f"--directory={self.root}", "--boot", "--register=no", "--keep-unit", "--private-network",
                   f"--machine=portcullis-{os.getpid()}", "--console=pipe", "--link-journal=no", "--quiet",
                   # Its own filter does not know these, which a unit on real hardware has.
                   "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self", *BOOT]
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if not until(self._is_up, START_SECONDS):
            raise RigError(f"the machine did not start in {START_SECONDS} s:\n{tail(self.log)}")

    def _is_up(self):
        if self.process.poll() is not None:
            raise RigError(f"systemd-nspawn ended with exit code {self.process.returncode}:\n{tail(self.log)}")
        if self.leader is None:
            with contextlib.suppress(OSError):
                children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
                # nspawn has a helper of its own for a moment.
                self.leader = next((child for child in children if _is_init(child)), None)
        return self.leader is not None and "active" in self.attempt("systemctl is-active basic.target")[1].split()

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            # Its SIGTERM is an orderly shutdown, for which nobody waits.
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        if self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.leader), signal.SIGKILL)
            until(lambda: not pathlib.Path(f"/proc/{self.leader}").exists(), 10)
        subprocess.run(["umount", "--lazy", str(self.root)], check=False, stderr=subprocess.DEVNULL)

    def attempt(self, script, seconds=120):
        """Runs a script in the machine; returns its exit code, and its output and errors as one text."""
        command = ["nsenter", "--target", self.leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--", "env", "-i",
                   "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
                   "DEBIAN_FRONTEND=noninteractive", "bash", "-c", f"cd /root; {script}"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=seconds)
        except subprocess.TimeoutExpired as late:
            return 124, f"not done in {seconds} s: {(late.stdout or b'').decode(errors='replace')}"
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def run(self, script, seconds=120):
        code, text = self.attempt(script, seconds)
        if code != 0:
            raise RigError(f"in the machine: {script}\nexit code {code}\n{text[-3000:]}")
        return text

    def named(self):
        """Every path with our name in it that was made in the machine, and our user. What is below, which goes on to change, and what
        dpkg and systemd remember of everything that was ever there, is left out."""
        upper = self.folder / "upper"
        paths = {f"/{path.relative_to(upper)}" for path in upper.rglob("*") if "portcullis" in path.name.lower() and not _is_removed(path)}
        users = self.run("getent passwd portcullis; getent group portcullis; true").splitlines()
        return {line for line in paths.union(users) if not line.startswith(REMEMBERED)}

    def copy(self, file):
        """Puts a file into /root of the machine."""
        (self.root / "root" / file.name).write_bytes(file.read_bytes())


def _is_removed(path):
    """Whether the overlay says with it that a path below is gone."""
    return path.is_char_device()


def _is_init(pid):
    with contextlib.suppress(OSError):
        # It has entered its own root.
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"
    return False
