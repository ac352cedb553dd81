# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A list of the last ones, which several may add to."""

from __future__ import annotations

import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.gpuops.restore.plugins.module_utils._core import recent


def test_the_last_ones_are_kept(tmp_path: pathlib.Path) -> None:
    file = str(tmp_path / "run" / "list.json")
    assert recent.load(file) == recent.load("") == []
    for number in range(5):
        recent.add(file, [number], 3)
    assert recent.load(file) == [2, 3, 4]
    assert os.stat(os.path.dirname(file)).st_mode & 0o777 == 0o700 and os.listdir(os.path.dirname(file)) == [
        "list.json"
    ]


def test_none_is_lost_where_several_add(tmp_path: pathlib.Path) -> None:
    file = str(tmp_path / "run" / "list.json")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: recent.add(file, [number], 40), range(40)))
    assert sorted(recent.load(file)) == list(range(40))


def test_what_cannot_be_kept_or_read_does_not_matter(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    recent.add(str(tmp_path / "file" / "list.json"), [1], 3)
    recent.add("", [1], 3)
    damaged = tmp_path / "list.json"
    for text in ("", "{", "{}", "\udcff"):
        damaged.write_text(text, errors="surrogateescape")
        assert recent.load(str(damaged)) == []
    recent.add(str(damaged), [7], 3)
    assert recent.load(str(damaged)) == [7]
