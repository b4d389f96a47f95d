"""Processes that end with the rig, however it ends, and ports for them to listen on."""

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class RigError(Exception):
    """The rig itself could not do its work; says nothing about what is tested."""


def _die_with_parent():
    """Runs in the child: should the rig be killed outright, the kernel ends the child."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Processes:
    """Starts processes, and ends all of them when the `with` block is left."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def __enter__(self):
        # Without this, SIGTERM would end the rig without leaving the block.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_):
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in self.running:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name, command, env=None):
        """Starts `command` with its output in NAME.log; returns the process, with the log's path as `.log`."""
        log = os.path.join(self.folder, f"{name}.log")
        with open(log, "ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                preexec_fn=_die_with_parent, env=env,
            )
        process.log = log
        process.name = name
        self.running.append(process)
        return process

    def wait_until_ready(self, process, url, seconds=20):
        """Returns when `url` answers 200; fails with the end of the log if it never does."""
        def ready():
            if process.poll() is not None:
                raise RigError(f"{process.name} ended with exit code {process.returncode}:\n{tail(process.log)}")
            try:
                with urllib.request.urlopen(url, timeout=1) as answer:
                    return answer.status == 200
            except (urllib.error.URLError, OSError):
                return False

        if not until(ready, seconds):
            raise RigError(f"{process.name} did not become ready at {url} in {seconds} s:\n{tail(process.log)}")


def until(condition, seconds):
    """Asks again and again; whether `condition` came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def tail(path, size=3000):
    try:
        with open(path, "rb") as file:
            return file.read()[-size:].decode("utf-8", "replace")
    except FileNotFoundError:
        return "(no log)"


def run(command, given="", **options):
    """Runs a tool with `given` as its input and returns its output; a failure reports the output."""
    done = subprocess.run(
        command, input=given.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, **options)
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise RigError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{text[-3000:]}")
    return text


_given = set()


def free_port():
    """A TCP port of 127.0.0.1 that is not in use, from below the ephemeral port range."""
    while True:
        port = random.randint(20000, 32000)
        if port in _given:
            continue
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
