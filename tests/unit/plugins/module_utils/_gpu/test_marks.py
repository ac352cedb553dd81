# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._gpu import marks
from ansible_collections.gpuops.restore.plugins.module_utils._host.processes import Process


def test_a_mark_is_made_where_another_workload_just_took_the_last_one_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, process, other = str(tmp_path / "run" / "cuda"), Process(7, 70), Process(8, 80)
    marks.write(root, [other], marks.BEGUN)
    plain, left = os.open, [other]

    def open_late(path: Any, *given: Any, **more: Any) -> int:
        if left and str(path).startswith(root):
            marks.clear(root, [left.pop()])
        return plain(path, *given, **more)

    monkeypatch.setattr(os, "open", open_late)
    marks.write(root, [process], "why")
    assert not left and [marks.read(root, one) for one in (process, other)] == ["why", ""]
    marks.clear(root, [process])
    assert not os.path.exists(os.path.dirname(root))
