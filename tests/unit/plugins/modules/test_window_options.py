# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An option of a single step's module does the same where containerd_restore carries that step out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.gpuops.restore.plugins.module_utils._container.params import ContainerParams
from ansible_collections.gpuops.restore.plugins.module_utils._container.task_params import TaskParams
from ansible_collections.gpuops.restore.plugins.module_utils._probe.probe import ProbeParams
from ansible_collections.gpuops.restore.plugins.module_utils._restore.params import Job, Settings, jobs_of
from ansible_collections.gpuops.restore.plugins.modules import (
    containerd_container,
    containerd_probe,
    containerd_restore,
    containerd_task,
)

BASE = {"container_id": "train", "checkpoint": "c:1"}
#: What the window leaves to its callers: a file of metadata (the role gives the text), and how an old task is ended.
#: What a probe prints has no place in receipts. How long other runs are waited for is the client's.
NOT_IN_THE_WINDOW = {"container_id", "state", "metadata", "grace_seconds", "return_output", "busy_timeout"}
METADATA = '{"originalImage": "example.test/app:1", "snapshotID": "mine"}'


def other(name: str, option: Mapping[str, Any]) -> Any:
    """A value that the option does not have by itself."""
    if name == "metadata_content":
        return METADATA
    if name in ("before_capture", "after_capture", "after_restore"):
        # One of its kinds.
        return {"command": ["/bin/x"]}
    if option.get("options"):
        below = {key: other(key, below) for key, below in option["options"].items()}
        return [below] if option["type"] == "list" else below
    if option.get("choices"):
        return next(choice for choice in option["choices"] if choice != option.get("default"))
    return {
        "bool": not option.get("default"),
        "dict": {"a": "b"},
        "float": 2.5,
        "int": 17,
        "list": [7] if option.get("elements") == "int" else ["x", "y"],
        "path": "/elsewhere",
        "str": "other",
    }[option["type"]]


def validated(spec: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    # Ansible fills in defaults that are dictionaries.
    found = ArgumentSpecValidator(copy.deepcopy(spec)).validate(dict(options))
    assert not found.error_messages
    parameters: dict[str, Any] = found.validated_parameters
    return parameters


def in_the_window(options: Mapping[str, Any], probe: Mapping[str, Any] | None = None) -> Job:
    """The job of a workload with these options, each wherever containerd_restore has it."""
    spec = containerd_restore.ARGUMENT_SPEC
    suboptions = spec["workloads"]["options"]
    unknown = set(options) - set(spec) - set(suboptions) - NOT_IN_THE_WINDOW
    assert not unknown, f"containerd_restore lacks {unknown}"
    workload = {"name": "train", **{name: value for name, value in options.items() if name in suboptions}}
    if probe is not None:
        workload["probe"] = probe
    common = {name: value for name, value in options.items() if name in spec}
    parameters = validated(spec, {**common, "workloads": [workload]})
    (job,) = jobs_of(parameters["workloads"], Settings.from_options(parameters))
    return job


def shared(module: Any) -> Iterator[tuple[str, Any]]:
    """The options that both have, with another value than by default."""
    for name, option in module.ARGUMENT_SPEC.items():
        if name not in NOT_IN_THE_WINDOW:
            yield name, other(name, option)


@pytest.mark.parametrize(("name", "value"), list(shared(containerd_container)))
def test_of_the_container(name: str, value: Any) -> None:
    # What both know by another default is given.
    options = {**BASE, "rebuild": False, name: value}
    alone = ContainerParams.from_options(validated(containerd_container.ARGUMENT_SPEC, options))
    assert alone != ContainerParams.from_options(validated(containerd_container.ARGUMENT_SPEC, BASE))
    assert in_the_window(options).container == alone


@pytest.mark.parametrize(("name", "value"), list(shared(containerd_task)))
def test_of_the_task(name: str, value: Any) -> None:
    options = {**BASE, name: value}
    alone = TaskParams.from_options(validated(containerd_task.ARGUMENT_SPEC, options))
    assert alone != TaskParams.from_options(validated(containerd_task.ARGUMENT_SPEC, BASE))
    assert in_the_window(options).task == alone


def probes() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Of each kind one with nothing but what it has to have, and each of its other options."""
    spec = containerd_probe.ARGUMENT_SPEC
    common = set(spec) - {"command", "file", "http", "staging_dir"} - NOT_IN_THE_WINDOW
    yield {"command": ["true"]}, {}
    for name in sorted(common):
        yield {"command": ["true"]}, {name: other(name, spec[name])}
    for kind in ("file", "http"):
        least = {name: other(name, option) for name, option in spec[kind]["options"].items() if option.get("required")}
        yield {kind: least}, {}
        for name, option in spec[kind]["options"].items():
            if name not in least:
                yield {kind: least}, {kind: {**least, name: other(name, option)}}


@pytest.mark.parametrize(("least", "more"), list(probes()))
def test_of_the_probe(least: dict[str, Any], more: dict[str, Any]) -> None:
    def alone(probe: Mapping[str, Any]) -> ProbeParams:
        options = {"container_id": "train", "staging_dir": "/elsewhere", **probe}
        return ProbeParams.from_options(validated(containerd_probe.ARGUMENT_SPEC, options))

    probe = {**least, **more}
    assert in_the_window({**BASE, "staging_dir": "/elsewhere"}, probe).probe == alone(probe)
    assert (alone(probe) == alone(least)) == (not more)
