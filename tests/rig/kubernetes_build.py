"""kube-apiserver from Debian's source, with etcd and kubectl from its packages: built once, kept in the user's cache.

Debian 12 has the source and its compiler, but no package with the server. The lists of packages are the cache's own, so that
the system's stay as they are, and nothing is installed. Building takes about five minutes on two cores.
"""

import fcntl
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

from .processes import RigError, tail

# What is unpacked into the folder of tools, by apt's name.
_TOOLS = ("golang-1.19-go", "golang-1.19-src", "golang-github-modern-go-reflect2-dev", "etcd-server", "kubernetes-client", "rsync",
          "libpopt0", "libxxhash0")
_PROGRAMS = ("kube-apiserver", "etcd", "kubectl")
# Each step runs at a low priority, beside whatever else this machine does.
_NICENESS = 10
# The whole build. Five minutes on two cores that are free, and several times that beside other builds.
_BUILD_SECONDS = 2700


class BuildTimeout(RigError):
    """It was not built in time. What was fetched is kept."""


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(base) / "portcullis" / "kubernetes"


def is_built():
    return _complete(cache() / "bin")


def missing():
    """Why the programs cannot be had here, or None."""
    if is_built():
        return None
    tools = [tool for tool in ("apt-get", "dpkg", "make", "gcc") if not shutil.which(tool)]
    return f"kube-apiserver is not in {cache()}, and cannot be built without {', '.join(tools)}" if tools else None


def programs():
    """The folder that holds the three programs; builds what is not there."""
    home = cache()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_built():
            why = missing()
            if why:
                raise RigError(why)
            print(f"building kube-apiserver in {home}, once: about five minutes", flush=True)
            _build(home)
    return home / "bin"


def _complete(folder):
    return all(os.access(folder / name, os.X_OK) for name in _PROGRAMS)


def _build(home):
    # Without this, SIGTERM would leave the compiler running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work, packages = home / "build", home / "packages"
    log = _Log(home / "build.log")
    if work.exists():
        _remove(work, log)
    tools = work / "tools"
    tools.mkdir(parents=True)
    _fetch(packages, work, log)
    for package in packages.glob("*.deb"):
        _run(log, ["dpkg", "-x", str(package), str(tools)], work)
    tree = _unpack(packages, work, log)
    _replace_reflect2(tree, tools)
    _compile(tree, tools, log)
    built = next(tree.glob("_output/**/kube-apiserver"), None)
    if built is None:
        raise RigError(f"make ended without a kube-apiserver:\n{log.tail()}")
    staged = home / "bin.new"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    for program in (built, tools / "usr/bin/etcd", tools / "usr/bin/kubectl"):
        shutil.copy(program.resolve(), staged / program.name)
    shutil.rmtree(home / "bin", ignore_errors=True)
    staged.rename(home / "bin")
    # 2 GB that nothing needs any more.
    _remove(work, log)
    shutil.rmtree(packages)


def _remove(work, log):
    """Go writes its modules read-only."""
    _run(log, ["chmod", "-R", "u+w", str(work)], work.parent)
    shutil.rmtree(work)


def _fetch(packages, work, log):
    """What an interrupted build has fetched is used."""
    if (packages / "complete").exists():
        return
    shutil.rmtree(packages, ignore_errors=True)
    packages.mkdir()
    apt = _own_lists(work)
    _run(log, ["apt-get", *apt, "update"], work)
    _run(log, ["apt-get", *apt, "source", "--download-only", "kubernetes"], packages)
    _run(log, ["apt-get", *apt, "download", *_TOOLS], packages)
    (packages / "complete").touch()


def _own_lists(work):
    """apt's options for lists of our own: bookworm main, from the address and with the key that the machine uses."""
    text = ""
    for source in [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))]:
        if source.suffix in (".list", ".sources") and source.is_file():
            text += source.read_text() + "\n"
    address = re.search(r"(https?://\S+/debian)/?(?=\s)", text)
    key = re.search(r"[Ss]igned-[Bb]y[:=]\s*(/[^\s\]]+)", text)
    signed = f"[signed-by={key[1]}] " if key else ""
    line = f"{signed}{address[1] if address else 'http://deb.debian.org/debian'} bookworm main"
    (work / "sources.list").write_text(f"deb {line}\ndeb-src {line}\n")
    (work / "lists/partial").mkdir(parents=True)
    (work / "archives/partial").mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": work / "sources.list", "Dir::Etc::sourceparts": "/dev/null", "Dir::State::lists": work / "lists",
        "Dir::Cache": work, "APT::Sandbox::User": "root",
        # Lists of programs with icons, which only a shop needs.
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false", "Acquire::Languages": "none",
    }
    return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]


def _unpack(packages, work, log):
    archive = next(packages.glob("kubernetes_*.orig.tar.*"), None)
    if archive is None:
        raise RigError(f"apt-get source brought no archive:\n{log.tail()}")
    tree = work / "tree"
    tree.mkdir()
    _run(log, ["tar", "-xf", str(archive), "--strip-components=1", "-C", str(tree)], work)
    return tree


def _replace_reflect2(tree, tools):
    """The vendored reflect2 1.0.1 crashes at the first custom resource under Go 1.18 and later; Debian's 1.0.2 does not."""
    vendored = tree / "vendor/github.com/modern-go/reflect2"
    shutil.rmtree(vendored)
    shutil.copytree(tools / "usr/share/gocode/src/github.com/modern-go/reflect2", vendored)


def _compile(tree, tools, log):
    go = tools / "usr/lib/go-1.19"
    # Debian's package has links to where its other packages put these.
    for name in ("src", "test", "api", "misc", "pkg/include"):
        link, target = go / name, tools / "usr/share/go-1.19" / name
        if target.exists() and not link.exists():
            link.unlink(missing_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
    workspace = tree / ".go"
    (workspace / "src/k8s.io").mkdir(parents=True)
    (workspace / "src/k8s.io/kubernetes").symlink_to(tree)
    libraries = next(tools.glob("usr/lib/*-linux-gnu"))
    environment = {
        "PATH": f"{go}/bin:{tools}/usr/bin:{os.environ['PATH']}", "HOME": str(tree.parent), "GOROOT": str(go),
        "GOPATH": str(workspace), "CGO_ENABLED": "0", "LD_LIBRARY_PATH": str(libraries), "KUBE_GIT_VERSION": "v1.20.2",
        "KUBE_GIT_COMMIT": "0" * 40, "KUBE_GIT_TREE_STATE": "clean", "KUBE_GIT_MAJOR": "1", "KUBE_GIT_MINOR": "20",
        "GOFLAGS": "-mod=vendor", "GOTOOLCHAIN": "local",
    }
    _run(log, ["make", "WHAT=cmd/kube-apiserver"], tree, environment)


class _Log:
    """What the steps wrote, and until when they may."""

    def __init__(self, path):
        self.path = path
        self.path.write_text("")
        self.end = time.monotonic() + _BUILD_SECONDS

    def tail(self):
        return tail(self.path)


def _run(log, command, folder, environment=None):
    """Runs at a low priority, in a process group that ends with the step: make's children would go on without it."""
    with log.path.open("a") as output:
        output.write(f"+ {' '.join(command)}\n")
        output.flush()
        step = subprocess.Popen(["nice", "-n", str(_NICENESS), *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
                                stderr=output, env=environment, start_new_session=True)
        try:
            code = step.wait(max(0, log.end - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise BuildTimeout(f"it was not built in {_BUILD_SECONDS} s:\n{log.tail()}") from error
        finally:
            if step.poll() is None:
                os.killpg(step.pid, signal.SIGKILL)
                step.wait()
    if code != 0:
        raise RigError(f"{' '.join(command)}: exit code {code}\n{log.tail()}")
