# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sysctls of a network namespace are set again, those of the container's own alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import differences
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.task_state import TaskState
from ansible_collections.gpuops.restore.plugins.module_utils._container import sysctls, sysctls_worker
from ansible_collections.gpuops.restore.plugins.module_utils._host import task_worker

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another network namespace is entered as root alone")

OWN = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {}, "linux": {"namespaces": [{"type": "network"}]}}
BACKLOG = "net.core.somaxconn"


def recorded(values: dict[str, str]) -> TaskState:
    return TaskState({"sysctls": {"": values}})


def within(**entry: Any) -> dict[str, Any]:
    """A spec with that network."""
    return {**OWN, "linux": {"namespaces": [{"type": "network", **entry}] if entry else []}}


@pytest.fixture
def namespace() -> Iterator[int]:
    """A process in a network namespace of its own."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def run(pid: int, values: dict[str, str], report: Path) -> dict[str, Any]:
    """The program, as CRIU starts it."""
    words = [f"{name}={value}" for name, value in values.items()]
    subprocess.run([sys.executable, "-I", "-S", sysctls_worker.__file__, *words, str(report), str(pid)], check=True)
    found = json.loads(report.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def seen(pid: int, *names: str) -> dict[str, str]:
    found = task_worker.observe(pid, "/proc", names)["sysctls"]
    assert isinstance(found, dict)
    return found


def test_those_of_a_network_of_its_own() -> None:
    values = {BACKLOG: "77", "net.ipv4.tcp_rmem": "4096 8192 16384", "net.ipv6.conf.all.forwarding": "1"}
    assert sysctls.lost(recorded(values), OWN) == values
    assert sysctls.lost(None, OWN) == sysctls.lost(TaskState({}), OWN) == {}
    # Of one that was there before, whoever made it has set what he wants.
    assert sysctls.lost(recorded(values), within(path="/run/netns/pod")) == {}
    assert sysctls.lost(recorded(values), within()) == {}
    assert sysctls.script(recorded({}), OWN, "criu.conf", "work") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.msgmax", "1"),
        ("net.ipv4.conf.eth0.forwarding", "1"),
        ("net.netfilter.nf_conntrack_max", "1"),
        ("net.ipv4.tcp_allowed_congestion_control", "reno"),
        ("net.core.../../kernel/core_pattern", "|/bin/sh"),
        ("net.core", "1"),
        (BACKLOG, ""),
        (BACKLOG, "1\n2"),
        (BACKLOG, "1" * 1000),
        (BACKLOG, "\u0661"),
    ],
)
def test_nothing_else_of_a_strangers_record(name: str, value: str) -> None:
    assert sysctls.lost(recorded({name: value}), OWN) == {}


@needs_root
def test_they_are_set_whatever_follows_of_each_other(namespace: int, tmp_path: Path) -> None:
    """Forwarding puts others back."""
    shared = "net.ipv4.conf.all.shared_media"
    wanted = {shared: "0", "net.ipv4.ip_forward": "1", BACKLOG: "77", "net.ipv4.tcp_rmem": "4096 8192 16384"}
    before = seen(os.getpid(), *wanted)
    # Of a new namespace, which somebody had set again after forwarding: nothing of it is recorded.
    redirects = "net.ipv4.conf.all.accept_redirects"
    fresh = seen(namespace, redirects)
    assert run(namespace, wanted, tmp_path / "report") == {"set": sorted(wanted), "failed": {}}
    assert seen(namespace, *wanted, redirects) == {**wanted, **fresh}
    # Once more sets nothing.
    assert run(namespace, wanted, tmp_path / "again") == {"set": [], "failed": {}}
    assert seen(os.getpid(), *wanted) == before


@needs_root
def test_what_cannot_be_set_is_told(namespace: int, tmp_path: Path) -> None:
    wanted = {BACKLOG: "many", "net.ipv4.tcp_congestion_control": "nobodys", "net.ipv4.none": "1"}
    names = [BACKLOG, "net.ipv4.tcp_congestion_control"]
    found = run(namespace, wanted, tmp_path / "report")
    assert found["set"] == [] and sorted(found["failed"]) == names
    # A module for it would be loaded by whoever names it.
    assert found["failed"]["net.ipv4.tcp_congestion_control"] == "this kernel has no nobodys"
    after = recorded(seen(namespace, *names))
    told = [one.message for one in differences.compare(recorded({name: wanted[name] for name in names}), after)]
    assert told[0].startswith("Net.core.somaxconn of the container was many and is ") and len(told) == 2


@needs_root
def test_the_nodes_own_network_is_left_alone(tmp_path: Path) -> None:
    before = seen(os.getpid(), BACKLOG)
    found = run(os.getpid(), {BACKLOG: "77"}, tmp_path / "report")
    assert found["set"] == [] and "node's own network namespace" in found["failed"][BACKLOG]
    assert seen(os.getpid(), BACKLOG) == before
    assert list(run(1 << 30, {BACKLOG: "77"}, tmp_path / "gone")["failed"]) == [BACKLOG]


def test_criu_starts_it_when_the_namespace_is_there(tmp_path: Path) -> None:
    (tmp_path / "criu.conf").write_text("verbosity=4\n", encoding="ascii")
    made = sysctls.script(recorded({BACKLOG: "77"}), OWN, str(tmp_path / "criu.conf"), str(tmp_path))
    assert made is not None
    with made:
        text = (tmp_path / "sysctls.sh").read_text(encoding="ascii")
        assert "= setup-namespaces ]" in text and f" {BACKLOG}=77 " in text
    assert [path.name for path in tmp_path.iterdir()] == ["criu.conf"]
    (tmp_path / "sysctls.sh").touch()
    sysctls.clear(str(tmp_path))
    assert not (tmp_path / "sysctls.sh").exists()
