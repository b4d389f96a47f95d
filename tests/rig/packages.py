"""Debian's packages, where a tool is missing."""

import fcntl
import os
import pathlib
import shutil

from .processes import RigError, run

# Debian starts what it installs, unless this file says no.
_POLICY = pathlib.Path("/usr/sbin/policy-rc.d")
_LOCK = pathlib.Path("/var/lock/portcullis-tests-install")


def install(packages):
    """`packages` names a package for each tool, or for each callable that finds something. Nothing is started."""
    missing = sorted({package for tool, package in packages.items() if not (tool() if callable(tool) else shutil.which(tool))})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RigError(f"missing: {', '.join(missing)}")
    # Tests may run beside each other, and apt-get fails where another one is at work.
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(missing)


def _install(missing):
    print(f"installing {', '.join(missing)}", flush=True)
    made = not _POLICY.exists()
    if made:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    finally:
        if made:
            _POLICY.unlink()
