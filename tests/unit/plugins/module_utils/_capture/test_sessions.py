# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import sessions


@pytest.fixture
def proc(tmp_path: Path) -> str:
    """The task 100 with 101 and 102 below it; an exec session 200 with 201 below it; 300 has ended."""
    for pid, parent in ((100, 50), (101, 100), (102, 101), (200, 50), (201, 200)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n", encoding="ascii")
        (tmp_path / str(pid) / "comm").write_text(f"name{pid}\n", encoding="ascii")
    return str(tmp_path)


def test_who_does_not_descend_from_the_first_process(proc: str) -> None:
    every = [100, 101, 102, 200, 201, 300]
    assert sessions.outside(100, every, proc) == [200, 201]
    (said,) = sessions.warnings("job", 100, every, proc)
    assert "200 (name200), 201 (name201)" in said and "exec sessions" in said
    assert sessions.warnings("job", 100, [100, 101, 102], proc) == []
