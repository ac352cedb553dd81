# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked about all checkpoints in one call, and what was said, by the filter that the role asks."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.restore_decision import restore_decision
from ansible_collections.gpuops.restore.plugins.module_utils import _options

TOLD = {"checkpoint": {}, "problems": [], "status": {}}


def asked(*workloads: dict[str, Any], names: tuple[str, ...] = ("a",)) -> Any:
    known = {"workloads": list(workloads), "names": list(names), "metadata": {"m.json": "{}"}, "verify_key": ["k"]}
    return restore_decision(known, "readings")


def test_only_what_the_module_has_is_handed_on() -> None:
    every = dict.fromkeys((*_options.WORKLOAD_ORIGINAL, *_options.WORKLOAD_OUTPUT), "x")
    role = {"metadata": "m.json", "probe": {}, "gpu": "none", "env": {"A": "b"}, "checkpoint_archive": "/a.tar"}
    (found,) = asked({**every, "name": "a", "checkpoint": "a:1", **role})
    assert found == {**every, "container_id": "a", "checkpoint": "a:1", "metadata_content": "{}"}


def test_what_a_workload_does_not_say_is_the_module_s_default() -> None:
    (found,) = asked({"name": "a", "checkpoint": "a:1", "digest": ""})
    assert found == {"container_id": "a", "checkpoint": "a:1", "verify_key": ["k"]}


def test_those_that_are_named_and_each_once() -> None:
    twice = [{"name": "a", "checkpoint": "a:1"}, {"name": "b", "checkpoint": "b:1"}, {"name": "a", "checkpoint": "c:1"}]
    assert [one["checkpoint"] for one in asked(*twice)] == ["a:1"]
    assert [one["checkpoint"] for one in asked(*twice, names=("b", "a"))] == ["b:1", "a:1"]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"workloads": {"a": TOLD}}, {"a": TOLD, "b": {"old": True}}),
        ({"failed": True, "msg": "No socket."}, {"a": {"failed": True, "msg": "No socket."}, "b": {"old": True}}),
        ({"skipped": True}, {"b": {"old": True}}),
    ],
)
def test_what_was_said_is_kept_by_workload(answer: dict[str, Any], found: dict[str, Any]) -> None:
    known = {"found": {"b": {"old": True}}, "names": ["a"], "answer": answer}
    assert restore_decision(known, "found") == found
