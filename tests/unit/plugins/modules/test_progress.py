# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What long modules tell of how far they are, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils import _module
from ansible_collections.gpuops.restore.plugins.module_utils._core import progress_file
from ansible_collections.gpuops.restore.plugins.module_utils._core.progress import Board
from ansible_collections.gpuops.restore.tests.unit.helpers import told
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, NAME, Box
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import running
from ansible_collections.gpuops.restore.tests.unit.plugins.modules.test_containerd_checkpoint import box, process

__all__ = ["box", "process"]
ID = "0123456789abcdef" * 2


def test_staging_tells_its_bytes(call: Call, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    found = told.listen(monkeypatch)
    call("containerd_checkpoint_stage", checkpoint=CHECKPOINT_NAME, staging_dir=node.root)
    (staged,) = found
    assert (staged.phase, staged.bytes) == ("stage", staged.total) and staged.total > 0


def test_archives_tell_their_bytes(
    call: Call, fake: FakeContainerd, node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = told.listen(monkeypatch)
    given = {"name": CHECKPOINT_NAME, "path": str(tmp_path / "a.tar")}
    assert call("containerd_checkpoint_archive", operation="export", **given)["changed"]
    fake.state.images.clear()
    fake.state.blobs.clear()
    assert call("containerd_checkpoint_archive", operation="import", **given)["changed"]
    assert [(one.name, one.phase) for one in found] == [(CHECKPOINT_NAME, "export"), (CHECKPOINT_NAME, "import")]
    assert all(one.bytes > 0 < one.total for one in found), found


def test_a_registry_s_bytes_are_told(
    call: Call, fake: FakeContainerd, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = told.listen(monkeypatch)
    with running() as registry:
        given = {"name": CHECKPOINT_NAME, "reference": f"{registry.host}/team/app:1", "server": registry.url}
        given |= {"username": "trainer", "password": "hunter2"}
        assert call("containerd_checkpoint_registry", state="pushed", **given)["changed"]
        fake.state.images.clear()
        fake.state.blobs.clear()
        assert call("containerd_checkpoint_registry", state="pulled", **given)["changed"]
    assert [one.phase for one in found] == ["push", "pull"]
    assert all(one.bytes > 0 for one in found), found


def test_a_capture_tells_its_phases(call: Call, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    found = told.listen(monkeypatch)
    one = {"container_id": BOX, "name": NAME, "gpu": "none", "store": "node"}
    call("containerd_checkpoint", workloads=[one], staging_dir=box.root)
    phases = [told.phase for told in found]
    assert phases[0] == "preflight" and {"pause", "dump", "layer"} < set(phases)
    assert {told.name for told in found} == {BOX}
    (dump,) = (told for told in found if told.phase == "dump")
    assert dump.total > 0 and dump.expected is not None and dump.expected > 0


@pytest.mark.parametrize(
    ("more", "check", "notes"),
    [
        ({"progress_id": ID, "progress": 30}, False, True),
        ({"progress_id": ID, "progress": 0}, False, False),
        ({"progress_id": ID}, True, False),
        ({"progress_id": "../../etc/passwd"}, False, False),
        ({}, False, False),
    ],
)
def test_it_is_noted_where_the_controller_looks_and_only_then(
    call: Call, node: Node, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], check: bool, notes: bool
) -> None:
    boards: list[tuple[Any, ...]] = []

    def board(*given: Any) -> Board:
        boards.append(given)
        return Board()

    monkeypatch.setattr(_module, "Board", board)
    monkeypatch.setattr(progress_file, "Board", board)
    monkeypatch.setattr(progress_file, "ProgressFile", str)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    call("containerd_checkpoint_stage", check, checkpoint=CHECKPOINT_NAME, staging_dir=node.root, **more)
    assert boards == [(f"/run/gpuops-restore/progress/{ID}.json", 10.0) if notes else ()]
