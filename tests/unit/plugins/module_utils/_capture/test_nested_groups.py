# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import nested_groups


def said(tmp_path: Path, *groups: str) -> list[str]:
    """Of processes in these groups, one after another from 100 on; an empty one has ended."""
    for number, text in enumerate(groups):
        if text:
            (tmp_path / str(100 + number)).mkdir()
            (tmp_path / str(100 + number) / "cgroup").write_text(text, encoding="ascii")
            (tmp_path / str(100 + number) / "comm").write_text("init\n", encoding="ascii")
    return nested_groups.warnings("job", 100, range(100, 100 + len(groups)), str(tmp_path))


@pytest.mark.parametrize(
    ("own", "nested"),
    [
        ("0::/pods/job\n", "0::/pods/job/system.slice/a\n"),
        ("4:memory:/job\n1:pids:/job\n", "4:memory:/job\n1:pids:/job/system.slice/a\n"),
    ],
)
def test_below_the_containers(tmp_path: Path, own: str, nested: str) -> None:
    (told,) = said(tmp_path, own, own, nested, "")
    assert "102 (init) in system.slice/a." in told and "101" not in told


@pytest.mark.parametrize(
    ("own", "other"), [("0::/pods/job\n", "0::/pods/job2\n"), ("0::/\n", "0::/a\n"), ("", "0::/a\n")]
)
def test_others_are_not_of_it(tmp_path: Path, own: str, other: str) -> None:
    assert said(tmp_path, own, own, other) == []


def test_of_many_the_first_are_named(tmp_path: Path) -> None:
    (told,) = said(tmp_path, "0::/job\n", *(f"0::/job/{number}\n" for number in range(7)))
    assert told.count("(init)") == 5 and "and 2 more" in told
