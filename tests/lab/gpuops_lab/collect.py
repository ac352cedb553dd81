# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a node and prints as JSON all that a restore could leave behind.

Imports nothing of the lab: it is piped into the node's own Python. ctr is the witness for containerd, the
kernel's files for the rest. Lists are sorted; what differs from run to run by nature, as
pids and times do, is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator

STAGING = "/var/lib/gpuops-restore"
TASKS = "/run/containerd/io.containerd.runtime.v2.task"
# Made once and kept: CRIU's record of the kernel's features, locks, the lab's socket; and containerd's own
# directories, which appear with its first container and with the first of each namespace. What was measured of the
# node, and the directory of servers' records, which go with the boot; and runc's note that a container was dumped once,
# which goes with that.
KEPT_IN_RUN = re.compile(
    r"/run/(criu\.kdat|gpuops-lab|sshd|lock|xtables\.lock)(/|$)|/run/gpuops-restore(/((capture-)?rates\.json|serve))?$"
    r"|/run/containerd/runc/[^/]+/[^/]+/checkpoint$"
)
KEPT_BY_CONTAINERD = re.compile(rf"/run/containerd/(fifo|s|runc(/[^/]+)?)|{TASKS}(/[^/]+)?")
COUNTERS = re.compile(r"\[[0-9]+:[0-9]+\]")
EMPTY_TABLE = re.compile(r"\*\w+|:[A-Z]+ ACCEPT|COMMIT")


def command(*arguments: str) -> list[str]:
    """Lines of output; exits with the reason when it fails."""
    result = subprocess.run(arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.splitlines()


def table(*arguments: str) -> Iterator[list[str]]:
    """Rows of one of ctr's tables, without the heading."""
    for line in command("ctr", *arguments)[1:]:
        if line.split():
            yield line.split()


def collect_garbage(namespace: str) -> None:
    """What nothing refers to goes now, not some seconds later in the middle of a comparison: a lease's synchronous
    deletion has containerd collect garbage, of all namespaces, before it answers."""
    lease = f"listing-{os.getpid()}"
    command("ctr", "-n", namespace, "leases", "create", "--id", lease)
    command("ctr", "-n", namespace, "leases", "delete", "--sync", lease)


def containerd() -> dict[str, list[str]]:
    namespaces = command("ctr", "namespaces", "ls", "-q")
    if namespaces:
        collect_garbage(namespaces[0])
    plugins = [row for row in table("plugins", "ls") if row[0] == "io.containerd.snapshotter.v1" and row[-1] == "ok"]
    found: dict[str, list[str]] = {"namespaces": namespaces}
    for kind in ("containers", "tasks", "images", "content", "ingests", "leases", "snapshots"):
        found[kind] = []
    for name in namespaces:
        scope = ("-n", name)

        def add(kind: str, rows: list[str], prefix: str = name) -> None:
            found[kind] += [f"{prefix} {row}" for row in rows]

        add("containers", [" ".join(row) for row in table(*scope, "containers", "ls")])
        add("tasks", [f"{row[0]} {row[-1]}" for row in table(*scope, "tasks", "ls")])
        add("images", [" ".join((*row[:3], row[-1])) for row in table(*scope, "images", "ls")])
        add("content", command("ctr", *scope, "content", "ls", "-q"))
        add("ingests", [row[0] for row in table(*scope, "content", "active")])
        add("leases", command("ctr", *scope, "leases", "ls", "-q"))
        for plugin in plugins:
            rows = table(*scope, "snapshots", "--snapshotter", plugin[1], "ls")
            add("snapshots", [f"{plugin[1]} {' '.join(row)}" for row in rows])
    return found


class Process:
    """What /proc says about one process of the node."""

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/stat") as handle:
            text = handle.read()
        self.pid = pid
        self.name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        self.zombie = fields[0] == "Z"
        self.parent = int(fields[1])
        with open(f"/proc/{pid}/cmdline") as handle:
            self.arguments = handle.read().rstrip("\0").split("\0")


def processes() -> tuple[list[str], list[str]]:
    """(shims by namespace and id, names of all others); without ssh sessions, without this listing, and without the
    interpreter that tests fork modules from."""
    everything: dict[int, Process] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                everything[int(entry)] = Process(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile

    def passing(process: Process | None) -> bool:
        while process is not None and process.pid != 1:
            if process.pid == os.getpid() or process.name.startswith("sshd"):
                return True
            process = everything.get(process.parent)
        return False

    shims, others = [], []
    for process in everything.values():
        if passing(process) or process.name == "gpuops-warm":
            continue
        state = " (zombie)" if process.zombie else ""
        if process.name.startswith("containerd-shim"):
            shims.append(" ".join(process.arguments[:1] + options(process.arguments)) + state)
        else:
            others.append(process.name + state)
    return sorted(shims), sorted(others)


def options(arguments: list[str]) -> list[str]:
    found = []
    for name in ("-namespace", "-id"):
        if name in arguments[:-1]:
            found.append(arguments[arguments.index(name) + 1])
    return found


def mounts() -> list[str]:
    found = []
    for who, pid in (("init", 1), ("containerd", containerd_pid())):
        if not pid:
            continue
        with open(f"/proc/{pid}/mountinfo") as handle:
            for line in handle:
                left, _, right = line.rstrip("\n").partition(" - ")
                kind, _, details = right.partition(" ")
                fields = left.split()
                found.append(f"{who} {fields[4]} {kind} {fields[5]} {details.partition(' ')[2]}")
    return found


def containerd_pid() -> int:
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/exe") == "/usr/bin/containerd":
                return int(entry)
        except OSError:
            continue  # it ended meanwhile, or is a zombie
    return 0


def cgroups(namespaces: list[str]) -> list[str]:
    """All groups of the node; the parent that runc makes once for a containerd namespace does not count."""
    found = []
    with open("/proc/self/mountinfo") as handle:
        points = [line.split()[4] for line in handle if " - cgroup" in line]
    for point in points:
        for directory, _, _ in os.walk(point):
            relative = directory[len(point) :]
            if relative and relative.strip("/") not in namespaces:
                found.append(f"{point} {relative}")
    return found


def tree(top: str, describe: Callable[[str, os.stat_result], str]) -> list[str]:
    """Everything below a directory on its own file system, as described; '' leaves an entry out."""
    found: list[str] = []
    if not os.path.isdir(top):
        return found
    device = os.lstat(top).st_dev
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
                text = describe(path, status) if status.st_dev == device else ""
            except FileNotFoundError:
                continue  # it went away meanwhile
            if text:
                found.append(text)
        directories[:] = [name for name in directories if not os.path.ismount(os.path.join(directory, name))]
    return found


def with_mode(path: str, status: os.stat_result) -> str:
    return f"{path} {stat.filemode(status.st_mode)}"


def with_digest(path: str, status: os.stat_result) -> str:
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as handle:
            return f"{path} {hashlib.sha256(handle.read()).hexdigest()[:16]}"
    return f"{path} -> {os.readlink(path)}" if stat.S_ISLNK(status.st_mode) else path


def in_staging(path: str, status: os.stat_result) -> str:
    return "" if (path + "/").startswith(f"{STAGING}/debug/") else with_mode(path, status)


def in_run(path: str, status: os.stat_result) -> str:
    if KEPT_IN_RUN.match(path) or KEPT_BY_CONTAINERD.fullmatch(path):
        return ""
    # Of a task's bundle only its being there: a running container's files change.
    inside_bundle = path.startswith(TASKS + "/") and path.count("/") > TASKS.count("/") + 2
    return "" if inside_bundle else with_mode(path, status)


def firewall() -> list[str]:
    found = []
    for program in ("iptables-save", "ip6tables-save"):
        result = subprocess.run([program], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        lines = result.stdout.splitlines() if result.returncode == 0 else ["unavailable"]
        rules = [COUNTERS.sub("", line).strip() for line in lines if not line.startswith("#")]
        # iptables makes its tables when it is first asked anything; without a rule they do nothing.
        found += [f"{program} {rule}" for rule in rules if not EMPTY_TABLE.fullmatch(rule)]
    return found


def write(found: dict[str, list[str]]) -> None:
    """Print what containerd has, as found, with all that there is beside it."""
    found["shims"], found["processes"] = processes()
    found["mounts"] = mounts()
    found["cgroups"] = cgroups(found["namespaces"])
    found["tmp"] = tree("/tmp", with_mode)
    found["staging"] = tree(STAGING, in_staging)
    found["log"] = tree("/var/log", lambda path, _: path)
    found["etc"] = tree("/etc", with_digest)
    found["run"] = tree("/run", in_run)
    found["containerd_temporary"] = tree("/var/lib/containerd/tmpmounts", with_mode)
    found["firewall"] = firewall()
    json.dump({kind: sorted(rows) for kind, rows in found.items()}, sys.stdout)


if __name__ == "__main__":
    write(containerd())
