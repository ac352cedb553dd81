# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file that says what a capture has under way."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import mark as capture_mark
from ansible_collections.gpuops.restore.plugins.module_utils._capture.mark import ENDING, Mark
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, ConflictError

MARK = Mark(
    7, 8, "/staging/capture/k8s.io/box", "/staging", "lease", "overlayfs", "view", "copy", True, "example.test/a:1"
)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "capture")


def test_what_is_written_is_read_by_the_next_run(root: str) -> None:
    with capture_mark.locked(root, "k8s.io", "box") as file:
        assert file.read() is None
        file.write(MARK)
    assert capture_mark.peek(root, "k8s.io", "box") == MARK
    assert capture_mark.peek(root, "k8s.io", "other") is None
    shorter = dataclasses.replace(MARK, directory="/d", phase=ENDING, links=("/a", "/b"))
    with capture_mark.locked(root, "k8s.io", "box") as file:
        assert file.read() == MARK
        file.write(shorter)
        assert file.read() == shorter
        file.clear()
        assert file.read() is None
    assert not os.path.exists(os.path.dirname(root)), "nothing is left of a file without a mark"


def test_one_run_at_a_time_for_a_container(root: str) -> None:
    with capture_mark.locked(root, "k8s.io", "box") as file:
        file.write(MARK)
        for attempt in (lambda: capture_mark.peek(root, "k8s.io", "box"), lambda: enter(root)):
            with pytest.raises(ConflictError) as caught:
                attempt()
            assert (caught.value.code, caught.value.outcome) == ("busy", RETRYABLE)
        with capture_mark.locked(root, "k8s.io", "other"):
            pass
    assert enter(root) == MARK


def enter(root: str) -> Mark | None:
    with capture_mark.locked(root, "k8s.io", "box") as file:
        return file.read()


def test_to_look_makes_nothing(root: str) -> None:
    assert capture_mark.peek(root, "k8s.io", "box") is None
    assert not os.path.exists(root)


@pytest.mark.parametrize("kept", [0, 1, 40, -2])
def test_half_a_mark_is_none(root: str, kept: int) -> None:
    """What was cut short was never followed by anything that stops the workload."""
    with capture_mark.locked(root, "k8s.io", "box") as file:
        file.write(MARK)
    path = Path(root) / "k8s.io" / "box"
    path.write_bytes(path.read_bytes()[:kept])
    assert capture_mark.peek(root, "k8s.io", "box") is None


def test_a_mark_is_private_and_its_keys_are_those_of_earlier_releases(root: str) -> None:
    with capture_mark.locked(root, "k8s.io", "box") as file:
        file.write(MARK)
    path = Path(root) / "k8s.io" / "box"
    assert [entry.stat().st_mode & 0o777 for entry in (path, path.parent)] == [0o600, 0o700]
    assert json.loads(path.read_text(encoding="ascii")) == {
        "pid": 7,
        "start_time": 8,
        "directory": "/staging/capture/k8s.io/box",
        "staging_dir": "/staging",
        "lease": "lease",
        "snapshotter": "overlayfs",
        "view": "view",
        "copy": "copy",
        "cuda": True,
        "name": "example.test/a:1",
        "phase": "capturing",
    }
    assert (capture_mark.KEPT_PAUSED, capture_mark.ENDING) == ("held", "ending")
