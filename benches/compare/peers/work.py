"""What is measured of each pair, and how: processor time of its processes, before and after."""

import json
import os
import pathlib
import subprocess
import time

from rig.processes import RigError

TICKS = os.sysconf("SC_CLK_TCK")
DEADLINE = 120
# Long enough for what the last bytes leave to be done.
SETTLE = 0.2
IDLE = 1000

# The load generator's arguments; {n} is scaled down for a quick run.
ALL = {
    # First: what other work has grown and left would hide what a connection costs.
    "idle": ("hold", IDLE),
    "up-1": ("bytes", 1, 2000, "up"),
    "down-1": ("bytes", 1, 2000, "down"),
    "up-8": ("bytes", 8, 250, "up"),
    "down-8": ("bytes", 8, 250, "down"),
    "requests-1": ("requests", 1, 3000),
    "requests-64": ("requests", 64, 4000),
    "requests-512": ("requests", 512, 4000),
    "connections": ("connections", 32, 4000),
}


def measure(key, pair, generator, scale):
    kind, *numbers = ALL[key]
    if kind == "bytes":
        numbers = [numbers[0], max(1, int(numbers[1] * scale)), numbers[2]]
    elif kind != "hold":
        numbers = [numbers[0], max(100, int(numbers[1] * scale))]
    load = subprocess.Popen([generator, "load", pair.entry, kind, *map(str, numbers)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    try:
        expect(load, "ready")
        if kind == "hold":
            settle(pair)
        time.sleep(SETTLE)
        before, resident = pair.processor_seconds(), pair.resident()
        go(load)
        if kind == "hold":
            expect(load, "held")
            time.sleep(1)
            held = {"kib_each": (pair.resident() - resident) / 1024 / IDLE}
            go(load)
        result = json.loads(load.stdout.readline())
        time.sleep(SETTLE)
        spent = pair.processor_seconds() - before
        if load.wait(DEADLINE) != 0:
            raise RigError(f"{key}: the load generator failed")
    except ValueError:
        raise RigError(f"{pair.name}, {key}: the load generator ended with {load.wait(DEADLINE)}") from None
    finally:
        load.kill()
    units = result["units"]
    if kind == "hold":
        return held
    if kind == "bytes":
        return {"cpu_s_per_gb": spent / units * 1000, "mb_per_s": units / result["seconds"]}
    if kind == "requests":
        return {"cpu_us": spent / units * 1e6, "per_s": units / result["seconds"], "p50_ms": result["p50_ms"],
                "p99_ms": result["p99_ms"]}
    return {"cpu_ms": spent / units * 1e3, "per_s": units / result["seconds"]}


def settle(pair):
    """What the start leaves is done, and what the first connection maps of a binary is mapped: neither belongs to a connection."""
    time.sleep(2)
    if not pair.carry_one():
        raise RigError(f"{pair.name} does not carry a request")
    time.sleep(SETTLE)


def expect(load, word):
    line = load.stdout.readline().strip()
    if line != word:
        raise ValueError(line)


def go(load):
    load.stdin.write("\n")
    load.stdin.flush()


def processor_seconds(pids):
    """User and system time of the processes and their threads."""
    spent = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / TICKS


def resident(pids):
    return sum(int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE")
