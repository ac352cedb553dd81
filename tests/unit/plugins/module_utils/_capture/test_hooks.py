# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import mark as capture_mark, settle
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import CaptureParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._probe import hook as probe_hook
from ansible_collections.gpuops.restore.plugins.module_utils._probe.hook import AFTER_CAPTURE, BEFORE_CAPTURE, Hook
from ansible_collections.gpuops.restore.plugins.module_utils._probe.probe import ProbeResult
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, NAME, Box
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_access import changed

process = pytest.fixture(capture_samples.process)


def hook(name: str) -> Hook:
    found = Hook.from_options(name, {"command": [f"/bin/{name}"]}, BOX, "/var/lib/x")
    assert found is not None
    return found


HOOKS: dict[str, Any] = {name: hook(name) for name in (BEFORE_CAPTURE, AFTER_CAPTURE)}


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


@pytest.fixture
def ran(box: Box, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was run, after which calls of containerd; ``fails`` names those that fail."""
    found: dict[str, Any] = {"order": [], "fails": set()}

    def run(_client: Client, hook_: Hook) -> ProbeResult:
        calls = [name for name in ("Tasks/Pause", "Tasks/Resume", "Images/Create") if name in box.fake.names()]
        found["order"].append((hook_.name, [name.partition("/")[2] for name in calls]))
        if hook_.name in found["fails"]:
            raise RestoreError("hook_failed", f"{hook_.name} failed.", "Mend it.", details={"hook": hook_.name})
        return ProbeResult("command", True, "It ended.", 0.1)

    monkeypatch.setattr(probe_hook, "run", run)
    return found


def test_told_before_and_after(box: Box, ran: dict[str, Any]) -> None:
    predicted = box.capture(True, **HOOKS)
    assert ran["order"] == [] and box.capture(**HOOKS).actions == predicted.actions
    assert ran["order"] == [(BEFORE_CAPTURE, []), (AFTER_CAPTURE, ["Pause", "Resume"])]
    assert predicted.actions[0] == "run before_capture of box (/bin/before_capture)"


def test_it_is_looked_at_again_once_it_was_told(box: Box, ran: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds then counts, and may stand in the way."""
    from ansible_collections.gpuops.restore.plugins.module_utils._capture import preflight

    seen: list[int] = []
    really = preflight.examine

    def examine(*arguments: Any) -> Any:
        seen.append(len(ran["order"]))
        if len(seen) == 2:
            raise RestoreError("late", "Something came up.", "Mend it.")
        return really(*arguments)

    monkeypatch.setattr(preflight, "examine", examine)
    assert box.fails(**HOOKS).code == "late"
    assert seen == [0, 1] and [name for name, _calls in ran["order"]] == [BEFORE_CAPTURE, AFTER_CAPTURE]
    box.untouched()


def test_one_that_fails_before_keeps_it_from_being_captured(box: Box, ran: dict[str, Any]) -> None:
    ran["fails"] = {BEFORE_CAPTURE}
    error = box.fails(**HOOKS)
    assert (error.code, error.details) == ("hook_failed", {"hook": BEFORE_CAPTURE})
    assert ran["order"] == [(BEFORE_CAPTURE, []), (AFTER_CAPTURE, [])]
    box.untouched()
    ran["fails"] = {BEFORE_CAPTURE, AFTER_CAPTURE}
    assert "may still rest: after_capture failed." in box.fails(**HOOKS).details["left_behind"]
    assert "Tasks/Pause" not in box.fake.names()


def test_one_that_fails_after_does_not_cost_the_checkpoint(box: Box, ran: dict[str, Any]) -> None:
    ran["fails"] = {AFTER_CAPTURE}
    error = box.fails(**HOOKS)
    assert error.details["checkpoint"]["name"] == NAME and "is complete" in error.remedy
    assert NAME in box.fake.state.images
    assert not box.run.exists()


def test_a_dump_that_fails_is_followed_by_it(box: Box, ran: dict[str, Any]) -> None:
    box.fake.fail("Tasks/Checkpoint", times=1)
    assert box.fails(**HOOKS).code == "criu_dump_failed"
    assert ran["order"][-1] == (AFTER_CAPTURE, ["Pause", "Resume"])
    assert len(ran["order"]) == 2
    box.untouched()


def test_what_ends_is_not_told(box: Box, ran: dict[str, Any]) -> None:
    assert "end the task" in " ".join(box.capture(leave="stopped", **HOOKS).actions)
    assert [name for name, _calls in ran["order"]] == [BEFORE_CAPTURE]


def test_who_settles_it_tells_it(box: Box, ran: dict[str, Any]) -> None:
    box.capture(leave="paused", **HOOKS)
    assert [name for name, _calls in ran["order"]] == [BEFORE_CAPTURE]
    mark = capture_mark.peek(str(box.run), "tests", BOX)
    assert mark is not None and mark.after == {"command": ["/bin/after_capture"]}
    params: CaptureParams = changed(box.params)
    ran["fails"] = {AFTER_CAPTURE}
    with pytest.raises(RestoreError) as caught:
        settle.settled(box.client, params, False)
    assert caught.value.code == "hook_failed" and len(ran["order"]) == 2
    # Once: a command that cannot work would keep it from being captured for ever.
    assert not box.run.exists() and not settle.settled(box.client, params, False).changed
