# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import limits


@pytest.fixture
def machine(tmp_path: Path) -> limits.Machine:
    """Eight processors, two memory nodes, huge pages of 2 MiB and 1 GiB, one disk."""
    for path, text in (("devices/system/cpu/online", "0-7\n"), ("devices/system/node/online", "0-1\n")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text, encoding="ascii")
    for name in ("hugepages-2048kB", "hugepages-1048576kB"):
        (tmp_path / "kernel/mm/hugepages" / name).mkdir(parents=True)
    (tmp_path / "dev/block/259:0").mkdir(parents=True)
    return limits.Machine(str(tmp_path))


def spec(**resources: Any) -> dict[str, Any]:
    return {"linux": {"resources": {"memory": {"limit": 1}, **resources}}}


@pytest.mark.parametrize("text", ["1" * 5000, "0-65535," * 4000, "1-" * 3, "\u00b2", "0-" + "9" * 4300])
def test_a_list_of_a_stranger_takes_no_time(text: str) -> None:
    assert limits.parse(text) is None


FITTING = (
    {},
    {"cpu": {"cpus": "0-7", "mems": "0,1", "shares": 2}},
    {"cpu": {"cpus": "", "mems": ""}},
    {"cpu": {"cpus": "not a list"}},
    {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 0}]},
    {"blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 259, "minor": 0, "rate": 1}]}},
    {"cpu": None, "hugepageLimits": None, "blockIO": None},
)


@pytest.mark.parametrize("resources", FITTING)
def test_what_the_node_has_stays(machine: limits.Machine, resources: dict[str, Any]) -> None:
    given = spec(**resources)
    assert limits.problems(given, machine) == []
    assert limits.fitted(given, machine) == (given, [])


@pytest.mark.parametrize(
    ("resources", "word", "left"),
    [
        ({"cpu": {"cpus": "64-71", "shares": 2}}, "processors 64-71 (there are 0-7)", {"cpu": {"shares": 2}}),
        ({"cpu": {"cpus": "6-9"}}, "processors 6-9", {"cpu": {}}),
        ({"cpu": {"mems": "7"}}, "memory nodes 7 (there are 0-1)", {"cpu": {}}),
        (
            {
                "hugepageLimits": [
                    {"pageSize": "16MB", "limit": 1},
                    {"pageSize": "2MB", "limit": 1},
                    {"pageSize": "64KB"},
                ]
            },
            "huge pages of 16MB, huge pages of 64KB",
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]},
        ),
        (
            {"blockIO": {"weight": 9, "throttleReadBpsDevice": [{"major": 259, "minor": 77, "rate": 1}]}},
            "the block device 259:77",
            {"blockIO": {"weight": 9, "throttleReadBpsDevice": []}},
        ),
    ],
)
def test_what_another_machine_had(
    machine: limits.Machine, resources: dict[str, Any], word: str, left: dict[str, Any]
) -> None:
    given = spec(**resources)
    (problem,) = limits.problems(given, machine)
    assert problem.code == "limits_unfit" and word in problem.message and "limits: fit" in problem.remedy
    made, said = limits.fitted(given, machine)
    assert made == spec(**left) and said
    assert given == spec(**resources)
    assert limits.problems(made, machine) == []


def test_a_node_that_does_not_tell(tmp_path: Path) -> None:
    """Of its processors nothing is held against a spec; without NUMA there is one memory node."""
    bare = limits.Machine(str(tmp_path))
    assert limits.problems(spec(cpu={"cpus": "500", "mems": "0"}), bare) == []
    assert limits.problems(spec(cpu={"mems": "1"}), bare) != []
