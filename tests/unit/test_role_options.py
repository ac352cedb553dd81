# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An option of a role is the one that a module has under the same name, and its default stands in defaults/main.yml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.gpuops.restore.plugins.module_utils import _module
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import TREE, argument_spec

ROLES = ("restore_node", "checkpoint_node")
BLOCK = re.compile(r"^```ya?ml\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \| ?([^|]*?) ?\|", re.MULTILINE)

RESTORE = {**_module.CONTAINERD, **argument_spec("containerd_restore")}
CHECKPOINT = argument_spec("containerd_checkpoint")
ARCHIVE = argument_spec("containerd_checkpoint_archive")
REGISTRY = {f"registry_{name}": of for name, of in argument_spec("containerd_checkpoint_registry").items()}

#: What roles have to have otherwise: something to begin with, an empty text for what is not given, a word for a number.
OTHERWISE = {
    "restore_node_workloads": {"default", "required"},
    "restore_node_parallel": {"type", "default"},
    "checkpoint_node_workloads": {"default"},
    "restore_node_driver_root": {"type", "default"},
    "checkpoint_node_registry_username": {"default"},
    "checkpoint_node_registry_password": {"default"},
    "checkpoint_node_registry_server": {"default"},
    "checkpoint_node_registry_ca_file": {"type", "default"},
    "checkpoint_node_registry_auth_file": {"type", "default"},
    # A workload without it has the role's.
    "cuda_forks": {"default"},
    "store": {"default"},
    "targets": {"default"},
    "verify_key": {"default"},
}


def entry_points(role: str) -> dict[str, Any]:
    text = (TREE / "roles" / role / "meta" / "argument_specs.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)["argument_specs"]
    return found


def differences(options: Mapping[str, Any], spec: Mapping[str, Any], prefix: str) -> tuple[list[str], int]:
    """Where options and spec do not say the same, and how many options both have."""
    found, shared = [], 0
    for name in sorted(set(options) & {prefix + name for name in spec}):
        ours, theirs = options[name], spec[name[len(prefix) :]]
        shared += 1
        for key in ("type", "elements", "choices", "default", "required", "no_log"):
            if ours.get(key) != theirs.get(key) and key not in OTHERWISE.get(name, ()):
                found.append(f"{name}: {key} is {ours.get(key)}, the module's {theirs.get(key)}")
        if "options" in ours and "options" in theirs:
            below, count = differences(ours["options"], theirs["options"], "")
            found += [f"{name}.{text}" for text in below]
            shared += count
    return found, shared


@pytest.mark.parametrize(
    ("role", "spec", "least"),
    [("restore_node", RESTORE, 16), ("checkpoint_node", {**CHECKPOINT, **REGISTRY}, 9)],
)
def test_options_are_the_modules(role: str, spec: Mapping[str, Any], least: int) -> None:
    found, shared = differences(entry_points(role)["main"]["options"], spec, f"{role}_")
    assert found == []
    assert shared >= least


@pytest.mark.parametrize(
    ("role", "spec", "least"),
    [
        ("restore_node", RESTORE["workloads"]["options"], 30),
        ("checkpoint_node", {**ARCHIVE, **CHECKPOINT["workloads"]["options"]}, 6),
    ],
)
def test_workloads_are_the_modules(role: str, spec: Mapping[str, Any], least: int) -> None:
    found, shared = differences(entry_points(role)["main"]["options"][f"{role}_workloads"]["options"], spec, "")
    assert found == []
    assert shared >= least


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_the_documented_ones(role: str) -> None:
    defaults = yaml.safe_load((TREE / "roles" / role / "defaults" / "main.yml").read_text())
    documented: dict[str, Any] = {}
    for of in entry_points(role).values():
        documented.update({name: option.get("default") for name, option in of["options"].items()})
    assert defaults == documented


def test_the_guides_give_workloads_that_the_roles_take() -> None:
    guides = [TREE / "README.md", *(TREE / "docs").glob("*.md"), *(TREE / "roles").glob("*/README.md")]
    given = [pair for guide in guides for block in BLOCK.findall(guide.read_text()) for pair in variables(block)]
    assert len(given) >= 3
    for name, value in given:
        role = "_".join(name.split("_")[:2])
        spec = {name: entry_points(role)["main"]["options"][name]}
        assert ArgumentSpecValidator(spec).validate({name: value}).error_messages == [], name


def variables(block: str) -> Iterator[tuple[str, Any]]:
    """Variables of roles in a document, however deep; those with a template are not judged."""
    waiting = list(yaml.safe_load_all(block))
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, list):
            waiting += entry
        elif isinstance(entry, dict):
            for name, value in entry.items():
                if str(name).startswith(ROLES) and "{{" not in str(value):
                    yield name, value
                waiting.append(value)


@pytest.mark.parametrize("role", ROLES)
def test_the_table_of_variables_is_whole_and_has_the_defaults(role: str) -> None:
    told: dict[str, str] = {}
    for names, default in ROW.findall((TREE / "roles" / role / "README.md").read_text()):
        told.update(dict.fromkeys(re.findall(r"`(\w+)`", names), default))
    defaults = yaml.safe_load((TREE / "roles" / role / "defaults" / "main.yml").read_text())
    own = {name: default for name, default in told.items() if name.startswith(role)}
    assert set(own) == set(defaults)
    for name, default in own.items():
        if default.startswith("`"):
            assert yaml.safe_load(default.strip("`")) == defaults[name], name
        else:
            # A list is told in words.
            assert defaults[name] in ("", False) or isinstance(defaults[name], list), name
