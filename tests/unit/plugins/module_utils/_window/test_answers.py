# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What hosts ask for, and lists out of the answers of nodes, by the filters that the playbooks use."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.workload_nobody import workload_nobody
from ansible_collections.gpuops.restore.plugins.filter.workload_request import workload_request
from ansible_collections.gpuops.restore.plugins.filter.workload_selection import workload_selection

NVML = {"available": False, "reason": "nvidia-ml-py is not installed for this Python", "driver": None}


def container(container_id: str, **more: Any) -> dict[str, Any]:
    return {"id": container_id, "pod": None, "labels": {}, "sandbox": False, "gpu": False, "live": True, **more}


def checkpoint(name: str, of: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "container": of, "pod": None, "labels": {}, "gpu": False, **more}


def answer(*workloads: dict[str, Any], checkpoints: Any = (), **more: Any) -> dict[str, Any]:
    return {"workloads": list(workloads), "checkpoints": list(checkpoints), "nvml": NVML, "gpu_node": False, **more}


@pytest.mark.parametrize(
    ("names", "given", "selection", "takes_part", "part"),
    [
        (["restore_node_workloads"], [{"name": "a"}], None, True, ""),
        (["restore_node_workloads", "workloads"], [{"name": "a"}], {}, True, ""),
        (["restore_node_workloads"], [], None, False, ""),
        (["restore_node_workloads"], None, None, True, "has no value"),
        (["restore_node_workloads"], {"name": "a"}, None, True, "is no list"),
        (["restore_node_workloads"], "w1", None, True, "is no list"),
        (["restore_node_workload"], None, None, True, "Is restore_node_workloads meant?"),
        (["restore_node_wrokloads"], None, None, True, "Is restore_node_workloads meant?"),
        (["workload"], None, None, True, "Is workloads meant?"),
        (["workloads"], None, {"gpu": True}, True, ""),
        (["workloads"], None, None, True, "is empty"),
        (["workloads"], None, {"gpuu": True}, True, "Is gpu meant?"),
        (["ansible_host", "restore_node_owner", "checkpoint_node_workloads"], None, None, False, ""),
    ],
)
def test_what_a_host_asks_for(names: list[str], given: Any, selection: Any, takes_part: bool, part: str) -> None:
    found = workload_request(names, "restore", "gpu-a", given, selection)
    assert found["takes_part"] == takes_part
    assert (part in found["problem"]) if part else found["problem"] == ""


def test_nobody_with_workloads_is_told_with_what_there_is_instead() -> None:
    said = workload_nobody({"gpu-a": ["restore_node_workloads"], "gpu-b": []}, "capture")
    assert "None of 2 host(s)" in said and "gpu-a has restore_node_workloads, which is for another use" in said
    assert "checkpoint_node_workloads is empty on gpu-a" in workload_nobody(
        {"gpu-a": ["checkpoint_node_workloads"]}, "prune"
    )


def test_one_selection_serves_capture_restore_and_migration() -> None:
    seen = answer(
        container("new"),
        container("old", live=False),
        checkpoints=[checkpoint("x/old:1", "old"), checkpoint("x/gone:1", "gone"), checkpoint("foreign:1", "")],
    )
    wanted = {"names": ["*"], "checkpoint": "x/{name}:1", "defaults": {"network": "host", "leave": "stopped"}}
    lists = {}
    for use in ("capture", "restore", "migrate"):
        found = workload_selection(seen, wanted, use, "gpu-a")
        assert found["problems"] == []
        lists[use] = found["workloads"]
    assert [one["name"] for one in lists["capture"]] == ["new", "gone", "old"]
    assert all(one["leave"] == "stopped" and "network" not in one for one in lists["capture"])
    assert [one["checkpoint"] for one in lists["restore"]] == ["x/gone:1", "x/old:1"]
    assert all(one["network"] == "host" and "leave" not in one for one in lists["restore"])
    assert [one["source_name"] for one in lists["migrate"]] == ["new", "gone", "old"]


def test_gpu_is_what_holds_memory_now_or_held_it_when_it_was_captured() -> None:
    seen = answer(
        container("runs", gpu=True),
        container("cpu"),
        container("ended", live=False),
        checkpoints=[checkpoint("gpuops.local/checkpoint/ended:latest", "ended", gpu=True)],
        gpu_node=True,
        nvml={"available": True, "reason": None},
    )
    found = workload_selection(seen, {"gpu": True}, "capture", "gpu-a")
    assert [one["name"] for one in found["workloads"]] == ["runs", "ended"]


@pytest.mark.parametrize(
    ("seen", "part"),
    [
        ({"failed": True, "msg": "There is no containerd. Start it."}, "There is no containerd. Start it."),
        ({}, "did not run"),
        (None, "did not run"),
        (answer(container("a"), gpu_node=True), "cannot tell which containers have some: nvidia-ml-py is not"),
        (answer(container("a")), "takes no container with a task on gpu-a"),
    ],
)
def test_where_nobody_can_tell_there_is_a_problem_and_no_list(seen: Any, part: str) -> None:
    found = workload_selection(seen, {"gpu": True}, "capture", "gpu-a")
    assert found["workloads"] == [] and part in found["problems"][0]


@pytest.mark.parametrize("use", ["prune", "cleanup"])
def test_where_things_are_removed_there_may_be_nothing_left(use: str) -> None:
    found = workload_selection(answer(), {"names": ["*"]}, use, "gpu-a")
    assert (found["workloads"], found["problems"]) == ([], []) and "takes no" in found["note"]
    assert workload_selection(answer(), {"nams": ["*"]}, use, "gpu-a")["problems"]
