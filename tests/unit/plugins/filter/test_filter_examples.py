# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples of the filters, and the playbooks, call each filter as it can be called."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jinja2 import Environment, nodes

from ansible_collections.gpuops.restore.plugins.module_utils._migration import handover
from ansible_collections.gpuops.restore.plugins.module_utils._roles import (
    capture,
    capture_steps,
    cleanup,
    problems,
    restore_steps,
)
from ansible_collections.gpuops.restore.plugins.module_utils._window import steps as window_steps
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import COLLECTION, TREE

NAMES = sorted(path.stem for path in (TREE / "plugins" / "filter").glob("*.py"))


def load(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.filter.{name}")


def texts(document: Any) -> Iterator[str]:
    """All strings of tasks; conditions are expressions without braces."""
    if isinstance(document, dict):
        for key, value in document.items():
            bare = key in ("when", "that", "until", "failed_when", "changed_when") and isinstance(value, str)
            yield from [f"{{{{ {value} }}}}"] if bare else texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from texts(value)
    elif isinstance(document, str):
        yield document


def calls(document: Any) -> Iterator[tuple[str, nodes.Filter]]:
    """Our filters in it, with how each is called."""
    for text in texts(document):
        for found in Environment().parse(text).find_all(nodes.Filter):
            if found.name.startswith(f"{COLLECTION}."):
                yield found.name.rpartition(".")[2], found


def fits(name: str, call: nodes.Filter) -> None:
    """Raises TypeError when the filter does not take these arguments."""
    function = load(name).FilterModule().filters()[name]
    given = [*([call.node] if call.node else [None]), *call.args]
    inspect.signature(function).bind(*given, **{argument.key: argument.value for argument in call.kwargs})


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_filter_call_it_as_it_can_be_called(name: str) -> None:
    found = [call for called, call in calls(yaml.safe_load(load(name).EXAMPLES)) if called == name]
    assert found
    for call in found:
        fits(name, call)


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_loads_nothing_before_it_is_called(name: str) -> None:
    # Ansible loads all filters of a collection for a call of one, in every process that it forks for a task.
    tree = ast.parse((TREE / "plugins" / "filter" / f"{name}.py").read_text(encoding="utf-8"))
    loaded = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    loaded |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert loaded <= {"__future__", "collections.abc", "typing"}


def test_playbooks_and_roles_do_so_too() -> None:
    seen = set()
    for folder in ("playbooks", "roles"):
        for path in (TREE / folder).rglob("*.yml"):
            # Only files of tasks and variables have calls; argument specs are prose.
            if re.search(rf"\| *{re.escape(COLLECTION)}\.", path.read_text()):
                for name, call in calls(yaml.safe_load(path.read_text())):
                    fits(name, call)
                    seen.add(name)
    assert seen == set(NAMES)


#: The steps of filters that decide several, by the filter.
STEPS = {
    "capture_decision": capture_steps.STEPS,
    "migration_decision": handover.STEPS,
    "restore_decision": restore_steps.STEPS,
    "window_decision": window_steps.STEPS,
}


@pytest.mark.parametrize("name", sorted(STEPS))
def test_each_step_is_documented_and_asked_for(name: str) -> None:
    (of_step,) = (
        option for key, option in yaml.safe_load(load(name).DOCUMENTATION)["options"].items() if key == "step"
    )
    told = {step for line in of_step["description"] for step in re.findall(r"V\((\w+)\)", line.split(" - ")[0])}
    asked = set()
    for folder in ("playbooks", "roles"):
        for path in (TREE / folder).rglob("*.yml"):
            asked.update(re.findall(rf"\b{name}\(\s*[\"'](\w+)[\"']\)", path.read_text()))
    assert told == set(STEPS[name]) == asked


@pytest.mark.parametrize(
    ("role", "variable"),
    [
        ("restore_node", problems.ARCHIVE),
        ("restore_node", cleanup.NAME),
        ("checkpoint_node", capture.NAME),
    ],
)
def test_items_of_loops_are_where_the_decisions_look_for_them(role: str, variable: str) -> None:
    texts = [path.read_text() for path in (TREE / "roles" / role / "tasks").rglob("*.yml")]
    assert any(f"loop_var: {variable}\n" in text for text in texts)


def test_a_call_that_does_not_fit_is_noticed() -> None:
    ((name, call),) = calls(["{{ info | gpuops.restore.node_problems }}"])
    with pytest.raises(TypeError, match="missing a required argument: 'gpu'"):
        fits(name, call)
