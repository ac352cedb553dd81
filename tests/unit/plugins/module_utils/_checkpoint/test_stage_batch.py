# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several checkpoints staged in one call: side by side, within the disk's room, each with its own end."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import stage, stage_batch
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.stage import StageResult
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.stage_batch import Job, Place
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import files
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    CHECKPOINT_NAME,
    CRIU,
    add_checkpoint,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

OTHER = "example.test/other-checkpoint:1"


def test_what_does_not_fit_beside_those_before_it_is_refused_before_anything_is_written(
    fake: FakeContainerd, client: Client, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_checkpoint(fake.state, OTHER, base=node.base)
    jobs = [Job("a", CHECKPOINT_NAME), Job("b", OTHER), Job("c", CHECKPOINT_NAME)]
    size = len(fake.state.blobs[node.checkpoint.parts[CRIU]].data)
    monkeypatch.setattr(files, "free_bytes", lambda _root: files.RESERVE + size + 1)
    a, b, c = stage_batch.present(client.another, jobs, Place(node.root))
    assert a.result and c.result and b.error and b.error.code == "staging_no_space"
    assert len([name for name in os.listdir(node.root) if len(name) == 64]) == 1


@pytest.mark.parametrize(("parallel", "at_once"), [(1, 1), (2, 2), (3, 3)])
def test_so_many_at_a_time_in_the_order_of_the_workloads(
    client: Client, monkeypatch: pytest.MonkeyPatch, parallel: int, at_once: int
) -> None:
    here, most, lock = [0], [0], threading.Lock()
    together = threading.Barrier(at_once)

    def present(_client: Client, name: str, *_more: Any) -> StageResult:
        with lock:
            here[0] += 1
            most[0] = max(most[0], here[0])
        together.wait(30)
        with lock:
            here[0] -= 1
        return StageResult(directory=name)

    monkeypatch.setattr(stage, "present", present)
    jobs = [Job(f"w{number}", f"c{number}") for number in range(6)]
    found = stage_batch.present(client.another, jobs, Place("/nowhere"), parallel)
    assert [one.result.directory for one in found if one.result] == [job.checkpoint for job in jobs]
    assert most[0] == at_once


def test_one_that_nobody_foresaw_ends_alone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def present(_client: Client, name: str, *_more: Any) -> StageResult:
        if name == "c0":
            raise ZeroDivisionError("odd")
        return StageResult()

    monkeypatch.setattr(stage, "present", present)
    found = stage_batch.present(client.another, [Job("a", "c0"), Job("b", "c1")], Place("/nowhere"))
    assert found[0].error and found[1].result


def test_a_workload_that_is_named_twice_is_refused(client: Client) -> None:
    with pytest.raises(InputError, match="stands more than once"):
        stage_batch.present(client.another, [Job("a", "x"), Job("a", "y")], Place("/nowhere"))
