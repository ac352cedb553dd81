# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import progress_lines
from ansible_collections.gpuops.restore.plugins.module_utils._core.progress import Track

STEP = {"name": "bert", "phase": "cuda_suspend", "seconds": 12.3, "done": 0, "total": 0, "rate": None, "left": None}


def lines(*steps: dict[str, Any]) -> list[str]:
    return progress_lines.lines(json.dumps({"steps": steps}))


def test_a_line_has_what_is_known() -> None:
    moving = {**STEP, "phase": "dump", "done": 3 << 30, "total": 16 << 30, "rate": 256 << 20, "left": 52.0}
    assert lines(STEP, moving, {**STEP, "name": "", "phase": "upload", "done": 3 << 20}) == [
        "bert: cuda suspend since 12 s",
        "bert: dump since 12 s, 3.00 GiB of 16.00 GiB, 256.0 MiB/s, about 52 s left",
        "upload since 12 s, 3.0 MiB",
    ]


def test_it_is_what_a_track_says() -> None:
    track = Track("bert", lambda: 5.0)
    track.phase("stage", 1 << 20)
    entry = track.entry()
    assert entry is not None and lines(entry) == ["bert: stage since 0 s, 0.0 MiB of 1.0 MiB"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"steps": 3}', '{"steps": [3]}', '{"steps": [{"name": 1}]}'])
def test_what_is_no_such_file_says_nothing(content: str) -> None:
    assert progress_lines.lines(content) == []


def test_a_node_cannot_steer_the_terminal_or_flood_it() -> None:
    found = lines(*[{**STEP, "name": "\x1b[2J" + "x" * 1000}] * 100)
    assert len(found) == 64 and len(found[0]) == 300 and "\x1b" not in found[0]
