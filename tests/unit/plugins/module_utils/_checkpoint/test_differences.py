# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is other than it was is told, and what was asked for is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import differences, task_state
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.differences import Expected
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.task_state import TaskState

KINDS: dict[str, dict[str, dict[str, str]]] = {
    "mounts": {
        "/": {"flags": "ro", "type": "overlay"},
        "/data": {"flags": "rw", "type": "ext4"},
        "/tmp": {"flags": "rw,nosuid", "type": "tmpfs", "options": "size=64k"},
    },
    "namespaces": {"": {"hostname": "box", "uid_map": "0 0 1"}, "1": {"net": "own"}, "7": {"net": "own"}},
    "network": {"lo": {"state": "up", "addresses": "127.0.0.1/8", "mtu": "65536"}, "routes": {"default": "over eth0"}},
    "sysctls": {"": {"net.core.somaxconn": "77"}},
    "cgroup": {"": {"memory.max": "max", "devices.list": "c 1:3 rwm"}, "1": {"place": "."}, "7": {"place": "nested"}},
    "limits": {"1": {"Max open files": "64 64"}, "7": {"Max open files": "64 64"}},
    "capabilities": {"1": {"CapEff": "00"}, "7": {"CapEff": "00", "CapAmb": "00"}},
    "no_new_privs": {"1": {"NoNewPrivs": "1"}, "7": {"NoNewPrivs": "1"}},
    "seccomp": {"1": {"Seccomp": "2", "Seccomp_filters": "1"}, "7": {"Seccomp": "2"}},
    "identity": {
        "1": {"Uid": "0 0 0 0", "security label": "web"},
        "7": {"Uid": "0 0 0 0", "Groups": "4", "Umask": "0027"},
    },
    "descriptors": {"1": {"0": "pipe (read)", "3": "/etc/hosts (read)"}, "7": {"4": "socket (read and write)"}},
    "processes": {
        "1": {"command": "sh", "parent": "none"},
        "7": {"command": "job", "parent": "1", "OOM score": "7", "directory": "/srv"},
    },
}


def told(kind: str, subject: str, item: str, now: str | None, **expected: Any) -> list[tuple[str, str]]:
    """Kinds and sentences where that is now so; None: it is gone."""
    after = copy.deepcopy(KINDS)
    if not item:
        del after[kind][subject]
    elif now is None:
        del after[kind][subject][item]
    else:
        after[kind].setdefault(subject, {})[item] = now
    found = differences.compare(TaskState(KINDS), TaskState(after), Expected(**expected))
    assert all(one.result()["message"] == one.message for one in found)
    return [(one.kind, one.message) for one in found]


def test_nothing_where_all_is_as_it_was() -> None:
    assert differences.compare(TaskState(KINDS), TaskState(copy.deepcopy(KINDS))) == []


@pytest.mark.parametrize(
    ("kind", "subject", "item", "now", "message"),
    [
        ("mounts", "/", "flags", "rw", "Flags of the mount at / was ro and is rw."),
        ("mounts", "/tmp", "flags", "rw", "Flags of the mount at /tmp was rw,nosuid and is rw."),
        ("mounts", "/tmp", "", None, "The mount at /tmp is gone: tmpfs rw,nosuid."),
        ("mounts", "/new", "flags", "rw", "The mount at /new is new: rw."),
        ("mounts", "/", "type", "ext4", "Type of the mount at / was overlay and is ext4."),
        ("mounts", "/tmp", "options", "size=1m", "Options of the mount at /tmp was size=64k and is size=1m."),
        ("namespaces", "7", "net", "as process 1", "The net namespace of process 7 was own and is as process 1."),
        ("namespaces", "", "hostname", "other", "Hostname of the container was box and is other."),
        ("namespaces", "", "uid_map", "0 9 1", "Uid_map of the container was 0 0 1 and is 0 9 1."),
        ("network", "lo", "", None, "The network device lo is gone: up 127.0.0.1/8 65536."),
        ("network", "lo", "mtu", "1500", "Mtu of the network device lo was 65536 and is 1500."),
        ("network", "lo", "state", "down", "State of the network device lo was up and is down."),
        ("network", "lo", "addresses", "", "Addresses of the network device lo was 127.0.0.1/8 and is none."),
        ("network", "routes", "default", None, "The route to default of the network is gone: over eth0."),
        ("network", "routes", "", None, "The route to default of the network is gone: over eth0."),
        ("sysctls", "", "net.core.somaxconn", "4", "Net.core.somaxconn of the container was 77 and is 4."),
        ("cgroup", "", "memory.max", "1", "Memory.max of the container was max and is 1."),
        ("cgroup", "", "devices.list", "", "Devices.list of the container was c 1:3 rwm and is none."),
        ("cgroup", "7", "place", ".", "The nested control group of process 7 was nested and is .."),
        ("limits", "7", "Max open files", "1 1", "Max open files of process 7 was 64 64 and is 1 1."),
        ("capabilities", "1", "CapEff", "ff", "CapEff of process 1 was 00 and is ff."),
        ("no_new_privs", "1", "NoNewPrivs", "0", "No_new_privs of process 1 was 1 and is 0."),
        ("seccomp", "1", "Seccomp", "0", "The seccomp mode of process 1 was 2 and is 0."),
        ("seccomp", "1", "Seccomp_filters", "0", "The number of seccomp filters of process 1 was 1 and is 0."),
        ("capabilities", "7", "CapAmb", "ff", "CapAmb of process 7 was 00 and is ff."),
        ("identity", "7", "Groups", "", "The further groups of process 7 was 4 and is none."),
        ("identity", "7", "Umask", "0000", "Umask of process 7 was 0027 and is 0000."),
        ("identity", "1", "security label", "unconfined", "Security label of process 1 was web and is unconfined."),
        ("processes", "7", "OOM score", "0", "OOM score of process 7 was 7 and is 0."),
        ("processes", "7", "directory", "/", "Directory of process 7 was /srv and is /."),
        ("identity", "7", "Uid", "1 1 1 1", "The user of process 7 was 0 0 0 0 and is 1 1 1 1."),
        ("descriptors", "1", "3", None, "Descriptor 3 of process 1 is gone: /etc/hosts (read)."),
        ("descriptors", "7", "9", "pipe (read)", "Descriptor 9 of process 7 is new: pipe (read)."),
        ("descriptors", "1", "0", "/etc/x (read)", "Descriptor 0 of process 1 was pipe (read) and is /etc/x (read)."),
        ("processes", "7", "", None, "Process 7 is gone: job."),
        ("processes", "7", "parent", "none", "Parent of process 7 was 1 and is none."),
    ],
)
def test_each_kind_is_told(kind: str, subject: str, item: str, now: str | None, message: str) -> None:
    assert told(kind, subject, item, now) == [(kind, message)]


@pytest.mark.parametrize(
    ("kind", "subject", "item", "now", "expected"),
    [
        # From elsewhere.
        ("mounts", "/data", "type", "xfs", {"binds": frozenset({"/data"})}),
        ("network", "lo", "state", "down", {"network": True}),
        ("sysctls", "", "net.core.somaxconn", "4", {"network": True}),
        ("namespaces", "1", "net", "node", {"network": True}),
        # Input and output are the operator's.
        ("descriptors", "1", "0", "/dev/null (read)", {}),
        ("descriptors", "1", "3", None, {"running": True}),
        ("processes", "7", "", None, {"running": True}),
        # A kernel that does not tell.
        ("seccomp", "1", "Seccomp", None, {}),
    ],
)
def test_what_was_asked_for_is_not_told(
    kind: str, subject: str, item: str, now: str | None, expected: dict[str, Any]
) -> None:
    assert told(kind, subject, item, now, **expected) == []


def test_flags_of_a_mount_from_elsewhere_are_told() -> None:
    assert told("mounts", "/data", "flags", "ro", binds=frozenset({"/data"})) != []


def test_what_many_processes_have_alike_is_told_once() -> None:
    after = copy.deepcopy(KINDS)
    for items in after["limits"].values():
        items["Max open files"] = "1 1"
    (one,) = differences.compare(TaskState(KINDS), TaskState(after))
    assert one.message == "Max open files of processes 1, 7 was 64 64 and is 1 1."


def test_kinds_that_one_side_lacks_are_not_compared_and_that_is_said() -> None:
    after = {kind: items for kind, items in KINDS.items() if kind != task_state.DESCRIPTORS}
    assert differences.compare(TaskState(KINDS), TaskState(after, ("descriptors",))) == []
    assert "descriptors" in differences.not_compared(TaskState(KINDS), TaskState(after, ("descriptors",)))
    assert differences.not_compared(TaskState(KINDS), TaskState(KINDS)) == ""
    bare = differences.not_compared(TaskState({}), TaskState(KINDS))
    assert "does not record" in bare and "capabilities" in bare and "seccomp" in bare
    assert "processes" in differences.not_compared(TaskState(KINDS), TaskState(KINDS), running=True)
    assert "does not record" in differences.not_compared(None, None)
    assert "could not be looked at" in differences.not_compared(TaskState(KINDS), None)
