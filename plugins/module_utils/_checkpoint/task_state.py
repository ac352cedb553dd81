# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the processes of a task have of the kernel: the annotation ``io.gpuops.restore/state`` of an image index.

A capture records it while the task stands still, and a restore looks at the same before the task goes on. Compact JSON,
version 1: by kind, subject (a mount, a device, a process by its id within the container, or "") and item one text, so
that any two can be compared (:mod:`_checkpoint.differences`). What processes have as the first one has it is there
once. Whoever made the image wrote it: what is not of this form counts as not recorded.
"""

from __future__ import annotations

import ipaddress
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core import strict_json
from .._core.strict_json import StrictJsonError
from .._host import mountinfo

VERSION = 1
#: Items that a process has in one of the kinds that it shares with others; there are sixteen limits.
_MOST_SHARED = 64
#: Within the file system of a /dev.
_NULL = "/null"
MOUNTS, NAMESPACES, NETWORK, SYSCTLS, CGROUP = "mounts", "namespaces", "network", "sysctls", "cgroup"
LIMITS, CAPABILITIES, PRIVILEGES, SECCOMP, IDENTITY = "limits", "capabilities", "no_new_privs", "seccomp", "identity"
DESCRIPTORS, PROCESSES = "descriptors", "processes"
KINDS = (
    MOUNTS,
    NAMESPACES,
    NETWORK,
    SYSCTLS,
    CGROUP,
    LIMITS,
    CAPABILITIES,
    PRIVILEGES,
    SECCOMP,
    IDENTITY,
    DESCRIPTORS,
    PROCESSES,
)
#: Those whose subjects are processes and that most processes share with the first.
_SHARED = frozenset({NAMESPACES, CGROUP, LIMITS, CAPABILITIES, PRIVILEGES, SECCOMP, IDENTITY})
#: Bytes of the text, which is a part of an image's index; registries take 4 MiB of it.
MOST_BYTES = 1 << 20
_LONGEST = 4096
#: What is left out first where there is too much.
_LONG = (DESCRIPTORS, PROCESSES)

_MOUNT_FLAGS = ("ro", "rw", "nosuid", "nodev", "noexec", "nosymfollow")
_TMPFS_OPTIONS = ("ro", "size=", "nr_inodes=", "mode=", "uid=", "gid=")
_STATUS = {
    CAPABILITIES: ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    PRIVILEGES: ("NoNewPrivs",),
    SECCOMP: ("Seccomp", "Seccomp_filters"),
    IDENTITY: ("Uid", "Gid", "Groups", "Umask"),
}
#: Of the scheduler, by its place behind the name in stat.
_STAT = {"nice": 16, "realtime priority": 37, "scheduling policy": 38}
_ACCESS = ("read", "write", "read and write")
_CLOEXEC = 0o2000000
_FLAGS = ((0o2000, "append"), (0o4000, "nonblock"), (_CLOEXEC, "cloexec"))
_UNLIMITED_V1 = 1 << 60
#: rtnetlink(7): addresses that a device gives itself.
_LINK_SCOPE = 253

#: Of a network or IPC namespace; as many are looked at.
_SYSCTL = re.compile(r"(?:net|kernel|fs\.mqueue)(?:\.[A-Za-z0-9_-]+)+\Z")
_MOST_SYSCTLS = 256

#: A namespace that is no container's.
_NODE = "node"

Subjects = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class TaskState:
    """By kind, subject and item."""

    kinds: Mapping[str, Subjects] = field(default_factory=dict)
    #: What there was too much of.
    omitted: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TaskState | None:
        """From the annotation's text; None where it is unreadable or of another version."""
        try:
            document = strict_json.parse_object(text, MOST_BYTES)
        except StrictJsonError:
            return None
        kinds, omitted = document.get("kinds"), document.get("omitted")
        if document.get("version") != VERSION or isinstance(document["version"], bool):
            return None
        if not isinstance(kinds, dict) or not isinstance(omitted, list):
            return None
        if not all(kind in KINDS and _is_subjects(subjects) for kind, subjects in kinds.items()):
            return None
        if not all(kind in KINDS for kind in omitted) or any(_grows(kind, of) for kind, of in kinds.items()):
            return None
        return cls({kind: _spread(kind, subjects) for kind, subjects in kinds.items()}, tuple(omitted))

    def render(self) -> str:
        """The annotation's text, of which as much is left out as makes it small enough."""
        kinds, omitted = dict(self.kinds), list(self.omitted)
        for kind in (*_LONG, *sorted(kinds)):
            document = {
                "version": VERSION,
                "kinds": {name: _without_first(name, subjects) for name, subjects in kinds.items()},
                "omitted": sorted(omitted),
            }
            text = json.dumps(document, separators=(",", ":"), sort_keys=True)
            if len(text) <= MOST_BYTES:
                return text
            if kinds.pop(kind, None) is not None:
                omitted.append(kind)
        return json.dumps({"version": VERSION, "kinds": {}, "omitted": sorted(omitted)}, separators=(",", ":"))


def of(observed: Mapping[str, Any]) -> TaskState:
    """What was seen (``_host.task_worker.observe``), so that it can be compared with what is seen elsewhere."""
    processes = [one for one in observed["processes"] if one["status"]]
    kinds: dict[str, dict[str, dict[str, str]]] = {MOUNTS: _mounts(str(observed["mountinfo"]))}
    if observed["sysctls"]:
        kinds[SYSCTLS] = {"": dict(observed["sysctls"])}
    statuses = {one["pid"]: _status(one["status"]) for one in processes}
    names = {pid: _last(status.get("NSpid", "")) or str(pid) for pid, status in statuses.items()}
    for kind, items in _STATUS.items():
        kinds[kind] = {
            names[pid]: {item: status[item] for item in items if item in status} for pid, status in statuses.items()
        }
    kinds[LIMITS] = {names[one["pid"]]: _limits(one["limits"]) for one in processes}
    kinds[NAMESPACES] = _namespaces(observed, processes, names)
    if observed["network"] and not any(items.get("net") == _NODE for items in kinds[NAMESPACES].values()):
        kinds[NETWORK] = _network(observed["network"])
    kinds[CGROUP] = _cgroup(observed["limits"], processes, names)
    for one in processes:
        if one["label"].strip("\0\n"):
            kinds[IDENTITY][names[one["pid"]]]["security label"] = one["label"].strip("\0\n")
    kinds[PROCESSES] = {
        names[one["pid"]]: _process(one, statuses[one["pid"]], names) for one in processes if one["stat"]
    }
    kinds[DESCRIPTORS] = _descriptors(processes, names)
    omitted = {DESCRIPTORS} if any(one["descriptors_left_out"] for one in processes) else set()
    if observed["processes_left_out"]:
        # Of what each has by itself those are compared that were looked at.
        omitted = {*_LONG, *_SHARED}
    kept = {kind: _cut(kinds[kind]) for kind in kinds if kind not in omitted or kind in _SHARED}
    return TaskState(kept, tuple(sorted(omitted)))


def seen(observed: Mapping[str, Any]) -> TaskState | None:
    """The same; None where the processes have ended, or what looked did not write what it should."""
    try:
        found = of(observed)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None
    return found if found.kinds.get(PROCESSES, found.omitted) else None


def sysctls(spec: Mapping[str, Any]) -> list[str]:
    """Those of a spec that belong to a network or IPC namespace, and so to the container."""
    names = (spec.get("linux") or {}).get("sysctl") or {}
    return sorted(name for name in names if _SYSCTL.match(name))


def recorded_sysctls(found: TaskState | None) -> list[str]:
    """Those that a capture has found set, the first of very many: a stranger may have written any."""
    names = found.kinds.get(SYSCTLS, {}).get("", {}) if found is not None else {}
    return sorted(name for name in names if _SYSCTL.match(name))[:_MOST_SYSCTLS]


def _is_subjects(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(items, dict)
        and len(subject) <= _LONGEST
        and all(
            isinstance(text, str) and len(text) <= _LONGEST and len(item) <= _LONGEST for item, text in items.items()
        )
        for subject, items in value.items()
    )


def _cut(subjects: Subjects) -> Subjects:
    return {
        subject[:_LONGEST]: {item[:_LONGEST]: text[:_LONGEST] for item, text in items.items()}
        for subject, items in subjects.items()
    }


def _without_first(kind: str, subjects: Subjects) -> Subjects:
    first = next((subject for subject in subjects if subject), "")
    if kind not in _SHARED or not first:
        return subjects
    shared = subjects[first]
    return {
        "first": {"": first},
        **{
            subject: (
                dict(items)
                if subject in (first, "")
                else {item: text for item, text in items.items() if shared.get(item) != text}
            )
            for subject, items in subjects.items()
        },
    }


def _grows(kind: str, subjects: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether more is shared than any process has; each of the others would get a copy of it."""
    return kind in _SHARED and any(len(items) > _MOST_SHARED for items in subjects.values())


def _spread(kind: str, subjects: Mapping[str, Mapping[str, str]]) -> Subjects:
    first = subjects.get("first", {}).get("", "")
    if kind not in _SHARED or first not in subjects:
        return subjects
    shared = subjects[first]
    return {
        subject: {**(shared if subject else {}), **items} for subject, items in subjects.items() if subject != "first"
    }


def _mounts(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for mount in mountinfo.parse(text):
        items = {"flags": ",".join(flag for flag in mount.options if flag in _MOUNT_FLAGS), "type": mount.fstype}
        if mount.root == _NULL:
            # What the runtime hides: /dev/null, of the container's own /dev at first, of the node's after a restore.
            items = {"type": "hidden"}
        if mount.fstype == "tmpfs" and mount.root == "/":
            options = (option for option in mount.super_options if option.startswith(_TMPFS_OPTIONS))
            items["options"] = ",".join(sorted(options))
        place, number = mount.mount_point, 1
        while place in found:
            number += 1
            place = f"{mount.mount_point} ({number})"
        found[place] = items
    return found


def _network(network: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for device in network["devices"]:
        addresses = sorted(
            f"{_address(address)}/{prefix}" for address, prefix, scope in device["addresses"] if scope != _LINK_SCOPE
        )
        state = "up" if device["up"] else "down"
        found[device["name"]] = {"state": state, "addresses": " ".join(addresses), "mtu": str(device["mtu"])}
    for destination, prefix, gateway, device, family in network["routes"]:
        target = (
            f"{_address(destination)}/{prefix}" if destination else ("default" if family == 2 else "default (IPv6)")
        )
        if target.startswith("fe80:"):
            continue
        way = " ".join(part for part in (f"via {_address(gateway)}" if gateway else "", f"over {device}") if part)
        routes = found.setdefault("routes", {})
        routes[target] = f"{routes[target]}, {way}" if target in routes else way
    return found


def _address(digits: str) -> str:
    return str(ipaddress.ip_address(bytes.fromhex(digits)))


def _status(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: " ".join(value.split()) for name, _colon, value in pairs}


def _last(text: str) -> str:
    return text.split()[-1] if text else ""


def _limits(text: str) -> dict[str, str]:
    """``proc_pid_limits(5)``: columns of fixed width."""
    found = {}
    for line in text.splitlines()[1:]:
        values = line[26:].split()
        if len(values) >= 2:
            found[line[:26].strip()] = f"{values[0]} {values[1]}"
    return found


def _namespaces(
    observed: Mapping[str, Any], processes: Iterable[Mapping[str, Any]], names: Mapping[int, str]
) -> dict[str, dict[str, str]]:
    """Each as ``node`` where it is the reader's, ``own`` for the first process in it, else whose it is."""
    found: dict[str, dict[str, str]] = {}
    holders = {link: _NODE for link in observed["here"].values() if link}
    for one in processes:
        name = names[one["pid"]]
        found[name] = {}
        for kind, link in one["namespaces"].items():
            if not link:
                continue
            found[name][kind] = holders.get(link, "own")
            holders.setdefault(link, "own" if not found.keys() - {name} else f"as process {name}")
    found[""] = {
        item: ", ".join(" ".join(line.split()) for line in str(observed[item]).splitlines())
        for item in ("uid_map", "gid_map")
    }
    if observed["hostname"]:
        found[""]["hostname"] = str(observed["hostname"])
    return found


def _cgroup(
    limits: Mapping[str, str], processes: Iterable[Mapping[str, Any]], names: Mapping[int, str]
) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    base: Mapping[str, str] = {}
    for one in processes:
        places = _places(one["cgroup"])
        base = base or places
        # Of hierarchies of their own one is enough to be nested.
        below = [posixpath.relpath(place, base[kind]) for kind, place in places.items() if kind in base]
        found[names[one["pid"]]] = {"place": next((place for place in below if place != "."), "." if below else "")}
    found[""] = _common(limits)
    return found


def _places(text: str) -> dict[str, str]:
    """By the controllers of the hierarchy, where a process is not in its root."""
    lines = (line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2)
    return {kind: place for _number, kind, place in lines if place.startswith("/") and place != "/"}


def _common(limits: Mapping[str, str]) -> dict[str, str]:
    """Limits of a v1 group as those of a v2 group, as far as they mean the same."""
    found = {name: text for name, text in limits.items() if name not in ("memory.limit_in_bytes", "cpu.cfs_period_us")}
    memory, quota = limits.get("memory.limit_in_bytes", ""), found.pop("cpu.cfs_quota_us", "")
    if memory.isdecimal():
        found["memory.max"] = "max" if int(memory) >= _UNLIMITED_V1 else memory
    if quota:
        found["cpu.max"] = f"{'max' if quota.startswith('-') else quota} {limits.get('cpu.cfs_period_us', '')}"
    return found


def _process(one: Mapping[str, Any], status: Mapping[str, str], names: Mapping[int, str]) -> dict[str, str]:
    fields = one["stat"].rpartition(")")[2].split()
    parent = int(fields[1]) if len(fields) > 1 and fields[1].isdecimal() else 0
    found = {
        "command": status.get("Name", ""),
        "parent": names.get(parent, "none"),
        "process group": _last(status.get("NSpgid", "")),
        "session": _last(status.get("NSsid", "")),
        "threads": status.get("Threads", ""),
        "directory": one["cwd"],
        "root": one["root"],
        "program": one["exe"],
        "OOM score": one["oom_score_adj"].strip(),
    }
    found.update({item: fields[place] for item, place in _STAT.items() if len(fields) > place})
    return found


def _descriptors(processes: Iterable[Mapping[str, Any]], names: Mapping[int, str]) -> dict[str, dict[str, str]]:
    """What each leads to. Pipes and sockets are named by the first descriptor that has them, but for the ends of the
    first process's input and output, which are outside of the container."""
    found: dict[str, dict[str, str]] = {}
    holders: dict[str, str] = {}
    for one in processes:
        name = names[one["pid"]]
        first = not found
        found[name] = {}
        for number, target, flags in one["descriptors"]:
            kind = target
            if target.endswith(" (deleted)") and not target.startswith("/memfd:"):
                kind = "deleted file"
            elif target.startswith(("pipe:[", "socket:[")):
                kind = target.partition(":")[0]
                if first and number <= 2:
                    holders[target] = kind
                holder = holders.setdefault(target, f"{kind} of descriptor {number} of process {name}")
                kind = kind if holder.endswith(f"descriptor {number} of process {name}") else holder
            found[name][str(number)] = " ".join([kind, _how(flags, target)]).strip()
    return found


def _how(flags: str, target: str) -> str:
    try:
        value = int(flags, 8)
    except ValueError:
        return ""
    if target.startswith("/dev/pts/"):
        # Of the console that runc opened (TIOCGPTPEER) the kernel shows it for every copy.
        value &= ~_CLOEXEC
    how = _ACCESS[value & 3] if value & 3 < 3 else ""
    return "(" + ", ".join([how, *(name for bit, name in _FLAGS if value & bit)]) + ")"
