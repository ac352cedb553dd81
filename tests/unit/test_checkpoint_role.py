# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What checkpoint_node says before anything is touched, by its variables as Ansible evaluates them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import TREE

WORKLOADS = [{"name": name, "checkpoint": f"example.test/{name}:1"} for name in ("a", "b")]
GOOD: dict[str, Any] = {"checkpoint": {"name": "x"}, "failure": None}
BAD: dict[str, Any] = {"msg": "There is no room. Make some.", "failure": {"code": "no_space"}}


ONE_TOO_MANY = {"workloads": {"a": GOOD, "b": BAD}, "failed": True, "failure": {}, "msg": "1 of 2 failed."}
#: Workloads, the answer, and what is said.
CASES: list[Any] = [
    (WORKLOADS, {"workloads": {"a": GOOD, "b": GOOD}}, []),
    # There is room for one of them: the node's answer for all is a failure then.
    (WORKLOADS, ONE_TOO_MANY, ["b: There is no room. Make some."]),
    (WORKLOADS, {"msg": "Bad option."}, ["Bad option."]),
    (WORKLOADS, {"rc": 137}, ["containerd_checkpoint did not run; -vvv shows why."]),
    (WORKLOADS, {"skipped": True}, []),
    ([], {"workloads": {}}, []),
    (
        [*WORKLOADS, {**WORKLOADS[0], "name": "c"}],
        {"workloads": {"a": GOOD, "b": GOOD}},
        [
            "example.test/a:1: The reference stands more than once in checkpoint_node_workloads. "
            "Give each checkpoint one of its own."
        ],
    ),
]
TWICE = [{"name": "A", "checkpoint": "example.test/big-a:1"}, WORKLOADS[0], {**WORKLOADS[1], "name": "c"}]


def test_the_problems_are_those_of_all_workloads_together(tmp_path: Path) -> None:
    known: list[dict[str, Any]] = [
        {"checkpoint_node_workloads": workloads, "__checkpoint_node_foretold": foretold, "said": said}
        for workloads, foretold, said in CASES
    ]
    tasks: list[dict[str, Any]] = [
        {
            "ansible.builtin.assert": {
                "that": "__checkpoint_node_problems == said",
                "fail_msg": "{{ __checkpoint_node_problems }}, not {{ said }}",
            },
            "vars": one,
        }
        for one in known
    ]
    # What stands twice would have the call refused as a whole.
    once = "__checkpoint_node_foretellable | map(attribute='container_id') | list == ['a', 'b', 'A']"
    twice = {"checkpoint_node_workloads": [*WORKLOADS, *TWICE]}
    tasks.append({"ansible.builtin.assert": {"that": once}, "vars": twice})
    # Names that differ in case are names of two containers.
    both = "__checkpoint_node_names == ['a', 'b', 'A', 'c']"
    tasks.append({"ansible.builtin.assert": {"that": both}, "vars": twice})
    role = TREE / "roles" / "checkpoint_node"
    files = [str(role / where / "main.yml") for where in ("defaults", "vars")]
    play = {"hosts": "localhost", "gather_facts": False, "vars_files": files, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    found = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-c", "local", "-i", "localhost,", "play.yml"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert (found.returncode, f"ok={len(tasks)} " in found.stdout) == (0, True), found.stdout + found.stderr
