# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import files as core_files
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

ARCHIVE = "containerd_checkpoint_archive"


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_files, "free_bytes", lambda _path: 1 << 40)


def test_out_and_in_again(call: Call, fake: FakeContainerd, node: Node, tmp_path: Path) -> None:
    options: dict[str, Any] = {"name": CHECKPOINT_NAME, "path": str(tmp_path / "checkpoint.tar.gz")}
    predicted = call(ARCHIVE, True, operation="export", **options)
    assert not os.path.exists(options["path"])
    done = call(ARCHIVE, operation="export", **options)
    assert (predicted["changed"], predicted["actions"], predicted["diff"]) == (True, done["actions"], done["diff"])
    assert (done["digest"], done["archive"]["compression"]) == (node.checkpoint.digest, "gzip")
    assert call(ARCHIVE, operation="export", **options)["changed"] is False
    for name in (CHECKPOINT_NAME, BASE_NAME):
        del fake.state.images[name]
    taken = call(ARCHIVE, operation="import", owner="me", digest=done["digest"], **options)
    assert (taken["changed"], taken["digest"]) == (True, done["digest"])
    # The base image gets no tag of anybody's.
    assert BASE_NAME not in fake.state.images
    for name in (CHECKPOINT_NAME, f"{BASE_NAME.partition(':')[0]}@{node.base.digest}"):
        assert fake.state.images[name].labels["io.gpuops.restore/owner"] == "me"


def test_what_is_no_archive_is_refused(call: Call, node: Node, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("no archive", encoding="utf-8")
    options = {"name": "example.test/new:1", "path": str(path)}
    for operation in ("import", "convert"):
        assert call(ARCHIVE, operation=operation, **options)["failed"] is True
    kept = call(ARCHIVE, operation="export", **{**options, "name": CHECKPOINT_NAME})
    assert (kept["failed"], path.read_text(encoding="utf-8")) == (True, "no archive")
    replaced = call(ARCHIVE, operation="export", force=True, **{**options, "name": CHECKPOINT_NAME})
    assert (replaced["changed"], replaced["archive"]["compression"]) == (True, "none")
