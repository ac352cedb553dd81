# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workloads that stand still after their capture, until somebody says what becomes of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import settle as capture_settle
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import CaptureResult
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import (
    BOX,
    NAME,
    PAUSED,
    RUNNING,
    STOPPED,
    Box,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


def settle(box: Box, check: bool = False, **changes: Any) -> CaptureResult:
    return capture_settle.settled(box.client, dataclasses.replace(box.params, **changes), check)


def test_paused_stays_paused_and_a_second_run_keeps_it_so(box: Box) -> None:
    done = box.capture(leave="paused")
    assert (done.changed, box.status()) == (True, PAUSED)
    assert not os.path.exists(box.root)
    for force in (False, True):
        again = box.capture(leave="paused", force=force)
        assert (again.changed, again.digest, again.warnings) == (False, done.digest, [])
    assert box.fake.names().count("Tasks/Checkpoint") == 1
    assert box.status() == PAUSED


@pytest.mark.parametrize(("leave", "status"), [("running", RUNNING), ("stopped", STOPPED)])
def test_settled_has_it_go_on_or_end_once(box: Box, leave: str, status: int) -> None:
    box.capture(leave="paused")
    predicted = settle(box, True, leave=leave)
    assert box.status() == PAUSED
    done = settle(box, leave=leave)
    assert (done.changed, done.actions, done.after) == (True, predicted.actions, predicted.after)
    assert box.status() == status
    assert NAME in box.fake.state.images
    assert not box.run.exists()
    assert not settle(box, leave=leave).changed
    assert box.status() == status


def test_what_ends_when_it_goes_on_is_told(box: Box) -> None:
    box.capture(leave="paused")
    box.fake.on("Tasks/Resume", lambda _context: capture_samples.end(box.pid))
    done = settle(box, leave="running")
    assert [process["pid"] for process in done.ended] == [box.pid]
    assert f"The task of {BOX} has ended" in done.warnings[0]


def test_what_is_ended_is_not_told(box: Box) -> None:
    box.capture(leave="paused")
    box.fake.on("Tasks/Kill", lambda _context: capture_samples.end(box.pid))
    done = settle(box, leave="stopped")
    assert (done.ended, done.warnings) == ([], [])


def test_a_foreign_container_is_not_ended_without_force(box: Box) -> None:
    box.capture(leave="paused")
    with pytest.raises(RestoreError) as caught:
        settle(box, leave="stopped", owner="somebody")
    assert (caught.value.code, box.status()) == ("container_not_ours", PAUSED)
    assert settle(box, leave="stopped", owner="somebody", force=True).changed
    assert box.status() == STOPPED


@pytest.mark.parametrize("changes", [{"name": "example.test/other:1", "leave": "paused"}, {"leave": "running"}])
def test_another_capture_waits_until_it_is_settled(box: Box, changes: dict[str, Any]) -> None:
    box.capture(leave="paused")
    for check in (True, False):
        error = box.fails(check, **changes)
        assert error.code == "capture_held"
        assert NAME in error.message
    assert box.status() == PAUSED


def test_an_image_that_was_removed_meanwhile_is_told(box: Box) -> None:
    box.capture(leave="paused")
    del box.fake.state.images[NAME]
    assert box.fails(leave="paused").code == "capture_held"
    settle(box)
    box.untouched()


def test_one_that_goes_on_by_anothers_hand_is_captured_anew(box: Box) -> None:
    box.capture(leave="paused")
    box.fake.state.tasks[BOX].status = RUNNING
    done = box.capture(leave="paused", force=True)
    assert done.changed and done.recovered
    assert box.status() == PAUSED
    assert box.fake.names().count("Tasks/Checkpoint") == 2


def test_where_nothing_stands_still_nothing_is_done(box: Box) -> None:
    assert not settle(box, leave="stopped").changed
    box.untouched()
