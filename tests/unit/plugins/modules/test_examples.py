# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples and samples of the documentation: tasks that the modules take, failures that they can give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ansible_collections.gpuops.restore.tests.unit.helpers import ansible_modules
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import COLLECTION, NAMES, TREE
from ansible_collections.gpuops.restore.tests.unit.test_failure_codes import listed

GUIDES = sorted([TREE / "README.md", *(TREE / "docs").glob("*.md")])
BLOCK = re.compile(r"^```ya?ml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def ours(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Module and options of each task of ours, however deep in plays and blocks."""
    if isinstance(document, list):
        for entry in document:
            yield from ours(entry)
    elif isinstance(document, dict):
        for key, value in document.items():
            if key.startswith(f"{COLLECTION}.") and key.rpartition(".")[2] in NAMES:
                yield key.rpartition(".")[2], value or {}
            else:
                yield from ours(value)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_module_are_accepted_by_it(name: str) -> None:
    found = [
        (module, options) for module, options in ours(ansible_modules.document(name, "EXAMPLES")) if module == name
    ]
    assert found
    for module, options in found:
        ansible_modules.parameters(module, options)


def test_examples_that_end_a_container_of_others_say_force() -> None:
    """A container that this collection has not made is only ended with it, which no argument spec tells."""
    tasks = list(ours(ansible_modules.document("containerd_checkpoint", "EXAMPLES")))
    captures = [capture for _, options in tasks for capture in options.get("workloads", [options])]
    ending = [capture for capture in captures if capture.get("leave") == "stopped"]
    assert len(ending) >= 3
    assert [capture["name"] for capture in ending if not capture.get("force")] == []


def test_the_readme_names_each_module() -> None:
    text = (TREE / "README.md").read_text()
    assert [name for name in NAMES if f"`{name}`" not in text] == []


def test_the_examples_of_the_guides_are_accepted() -> None:
    found = [
        task for guide in GUIDES for block in BLOCK.findall(guide.read_text()) for task in ours(yaml.safe_load(block))
    ]
    assert len(found) >= 6
    for module, options in found:
        ansible_modules.parameters(module, options)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("containerd_lease", {"id": "mine", "expires": 1}, "Supported parameters include"),
        ("containerd_lease", {}, "missing required"),
        ("containerd_restore", {"workloads": [{"name": "one"}]}, "checkpoint found in workloads"),
        ("containerd_container", {"container_id": "one"}, "state is present but all of the following are missing"),
        ("cuda_process", {"container_id": "one", "pids": [7]}, "mutually exclusive"),
        ("cuda_process", {"state": "running"}, "one of the following is required"),
        ("cuda_process_info", {"container_id": "one", "pids": [7]}, "mutually exclusive"),
        (
            "containerd_checkpoint_info",
            {"checkpoint": "c", "metadata": "/m", "metadata_content": ""},
            "mutually exclusive",
        ),
        ("containerd_checkpoint_registry", {"state": "pulled", "name": "c", "username": "u"}, "required together"),
        (
            "containerd_checkpoint_archive",
            {"operation": "convert", "name": "c", "path": "/p", "spec": "/s", "metadata": "/m"},
            "mutually exclusive",
        ),
        ("containerd_probe", {"container_id": "one"}, "one of the following is required"),
    ],
)
def test_what_a_module_would_refuse_is_noticed(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ansible_modules.parameters(name, options)
    with pytest.raises(ValueError, match=reason):
        ansible_modules.run(name, False, options)


def test_the_action_group_names_all_modules() -> None:
    runtime = yaml.safe_load((TREE / "meta" / "runtime.yml").read_text())
    assert sorted(runtime["action_groups"]["restore"]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_of_a_failure_is_one_of_the_documented(name: str) -> None:
    sample = ansible_modules.document(name, "RETURN")["failure"]["sample"]
    assert sample["code"] in listed()
    assert set(sample) == {"code", "outcome", "rpc", "hint", "details"}


def test_answers_that_are_not_as_documented_are_noticed() -> None:
    assert ansible_modules.undocumented("containerd_lease", {"changed": True, "actions": "none", "odd": 1}) == [
        "odd is documented nowhere",
        "lease lacks",
        "actions is no list",
    ]
    assert ansible_modules.undocumented("containerd_lease", {"failed": True, "msg": "No.", "failure": None}) == []
