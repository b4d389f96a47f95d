"""What `portcullis check` says of the redirect rules: of sidecars that may not read them, and of rules that it reads itself."""

import json
import subprocess

from . import topology as t

GROUP = "portcullis check"


def _capture(topology, side, *arguments):
    """The state of the check of the rules, and what it says."""
    command = ["ip", "netns", "exec", side.name, topology.binary, "check", "-o", "json", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, text=True)
    check = next(item for item in json.loads(done.stdout)["items"] if item["name"] == "capture-rules")
    return check["state"], check["findings"][0]["message"]


def sidecars(topology, case, state, says):
    """What the sidecars of both sides say."""
    for side in (topology.client, topology.server):
        found = _capture(topology, side, "--admin", f"127.0.0.1:{t.ADMIN}")
        topology.report.add(GROUP, f"{case}, the {side.name}", f"{state}: {says}",
                            None if found[0] == state and says in found[1] else str(found))


def configuration(topology):
    """A configuration, in the namespace in which a sidecar with it would run."""
    side = topology.client
    config = topology.folder / "check.yaml"
    config.write_text("workload: {name: web, namespace: shop}\ninbound: {transparent: \"0.0.0.0:15006\"}\n"
                      "outbound: {transparent: \"0.0.0.0:15001\"}\n")

    def expect(case, state):
        found = _capture(topology, side, "-c", config)
        topology.report.add(GROUP, case, state, None if found[0] == state else str(found))

    expect("a configuration, before install", "failed")
    side.intercept(topology.binary, "install", "-c", config)
    expect("a configuration, after install", "passed")
    side.run("nft", "add", "rule", "inet", "portcullis", "inbound", "tcp", "dport", "1", "return")
    expect("a configuration, after a rule was added", "warning")
    side.intercept(topology.binary, "remove")
