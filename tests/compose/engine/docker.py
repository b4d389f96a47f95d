"""The container engine: found or started, and left as it was."""

import contextlib
import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

from rig import packages
from rig.processes import Processes, RigError, run, until

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOLS = {"docker": "docker.io", "docker-compose": "docker-compose", "busybox": "busybox-static"}
IMAGE, APPS = "portcullis-test:latest", "portcullis-test-apps:latest"


class Engine:
    """Also remembers the projects that were started, and removes them."""

    def __init__(self, folder, binary, keep):
        self.folder = folder
        self.binary = binary
        self.keep = keep
        self.projects = {}
        self.processes = Processes(folder)

    def __enter__(self):
        packages.install(TOOLS)
        self.processes.__enter__()
        if not self._answers():
            print("starting dockerd", flush=True)
            self.processes.start("dockerd", ["dockerd"])
            if not until(self._answers, 60):
                raise RigError(f"no engine answers, and the one that was started does not: see {self.folder}/dockerd.log")
        return self

    def __exit__(self, *_):
        if not self.keep:
            for project in list(self.projects):
                with contextlib.suppress(RigError, subprocess.TimeoutExpired):
                    self.compose(project, "down", "--volumes", "--remove-orphans", "--timeout", "3")
            subprocess.run(["docker", "image", "rm", "--force", IMAGE, APPS], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=60)
        self.processes.__exit__()

    def _answers(self):
        return subprocess.run(["docker", "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def docker(self, *arguments):
        # The legacy builder needs nothing but the engine.
        return run(["docker", *map(str, arguments)], env={**os.environ, "DOCKER_BUILDKIT": "0"})

    def attempt(self, *arguments):
        """A command that may fail: exit code, and all that it printed."""
        done = subprocess.run(["docker", *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, text=True)
        return done.returncode, done.stdout

    def up(self, project, file):
        self.projects[project] = file
        self.compose(project, "up", "--detach")

    def compose(self, project, *arguments):
        return run(["docker-compose", "--project-name", project, "--file", str(self.projects[project]), *arguments],
                   env={**os.environ, "PORTCULLIS_IMAGE": IMAGE, "COMPOSE_HTTP_TIMEOUT": "120"}, cwd=self.folder)

    def attempt_compose(self, project, *arguments):
        """As `compose`, where it is of no interest whether it succeeds."""
        with contextlib.suppress(RigError):
            self.compose(project, *arguments)

    def container(self, project, service):
        """Its id, running or not."""
        found = self.docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={project}",
                            "--filter", f"label=com.docker.compose.service={service}").split()
        if len(found) != 1:
            raise RigError(f"{len(found)} containers of {service}")
        return found[0]

    def inspect(self, what):
        return json.loads(self.docker("inspect", what))[0]

    def state(self, container):
        return self.inspect(container)["State"]

    def ready(self, proxy, seconds=30):
        """Whether this proxy becomes ready in time. The engine's health checks are too rare to wait for."""
        return until(lambda: self.attempt("exec", proxy, "/portcullis", "healthcheck")[0] == 0, seconds)

    def healthy(self, container, seconds):
        """Whether the engine's health check succeeds in time."""
        return until(lambda: self.state(container).get("Health", {}).get("Status") == "healthy", seconds)

    def access(self, container):
        """The lines of its access log: text, without quotes around the values."""
        lines = self.attempt("logs", container)[1].replace('"', "").splitlines()
        return [line for line in lines if " access: " in line and "decision=" in line]

    def outsider(self, project, *arguments):
        """Runs our image in the project's network, without a sidecar; returns exit code and output."""
        return self.attempt("run", "--rm", "--network", f"{project}_default", IMAGE, *arguments)


def get(url, seconds=10):
    """Status and body, or what went wrong and nothing."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return f"{type(error).__name__}: {getattr(error, 'reason', error)}", ""


def eventually(what, seconds=10):
    """The last answer of `what`, as soon as its first part is true."""
    end = time.monotonic() + seconds
    while True:
        good, *rest = what()
        if good or time.monotonic() > end:
            return good, *rest
        time.sleep(0.1)
