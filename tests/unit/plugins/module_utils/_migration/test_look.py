# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import mark as capture_mark
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._migration import look
from ansible_collections.gpuops.restore.plugins.module_utils._migration.decisions import Seen
from ansible_collections.gpuops.restore.plugins.module_utils._migration.look import LookParams
from ansible_collections.gpuops.restore.plugins.module_utils._restore import records as restore_records
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, NAME, Box
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

process = pytest.fixture(capture_samples.process)
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


def params(box: Box, **changes: object) -> LookParams:
    found = LookParams(names=[BOX], directories=[], staging_dir=box.root, marks_root=str(box.run))
    return dataclasses.replace(found, **changes)


def seen(box: Box) -> Seen:
    return look.look(box.client, params(box), BOX)


def test_a_source_through_its_capture(box: Box) -> None:
    assert seen(box) == Seen(exists=True, task="RUNNING")
    done = box.capture(leave="paused")
    held = Seen(exists=True, task="PAUSED", capture="held", captured_as=NAME, captured_digest=done.digest)
    assert seen(box) == held
    del box.fake.state.images[NAME]
    assert seen(box) == dataclasses.replace(held, captured_digest="")
    with capture_mark.locked(str(box.run), box.client.namespace, BOX):
        assert seen(box).capture == "busy"


def test_a_copy_with_its_receipt(box: Box) -> None:
    box.fake.state.containers[BOX].labels[labels.CHECKPOINT] = DIGEST
    assert (seen(box).checkpoint, seen(box).receipt) == (DIGEST, "")
    restore_records.write_receipt(box.root, box.client.namespace, BOX, {"checkpoint": {"digest": DIGEST}})
    assert seen(box).receipt == DIGEST
    for odd in ({}, {"checkpoint": DIGEST}, {"checkpoint": {"digest": 7}}):
        restore_records.write_receipt(box.root, box.client.namespace, BOX, odd)
        assert seen(box).receipt == ""


def test_nothing_is_there(box: Box) -> None:
    box.fake.state.containers.clear()
    box.fake.state.tasks.clear()
    assert seen(box) == Seen()
    assert look.gather(box.client, params(box, directories=["/nonexistent"])) == {
        "records": [],
        "unreadable": [],
        "containers": {BOX: Seen().to_json()},
        "places": [],
    }


def test_directories_of_migrations_and_how_long_nothing_changed_in_them(box: Box, tmp_path: Path) -> None:
    for name in ("gpuops-migrate-old", "gpuops-migrate-new", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "gpuops-migrate-link").symlink_to(tmp_path / "other")
    archive = tmp_path / "gpuops-migrate-old" / "job.tar"
    archive.write_text("")
    past = time.time() - 5000
    os.utime(archive, (past, past))
    found = look.gather(box.client, params(box, directories=[str(tmp_path), str(tmp_path)]))["places"]
    assert [os.path.basename(place["path"]) for place in found] == ["gpuops-migrate-new", "gpuops-migrate-old"]
    assert found[1]["idle"] < 5000
    os.utime(archive.parent, (past, past))
    assert look.gather(box.client, params(box, directories=[str(tmp_path)]))["places"][1]["idle"] >= 5000
