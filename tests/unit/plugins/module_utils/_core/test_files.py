# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import files

pytestmark = pytest.mark.every_python


def test_free_space_where_a_path_is_or_would_be(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    here = files.free_bytes(str(tmp_path))
    assert here == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.1)
    assert files.free_bytes(f"{tmp_path}/not/there/yet") == pytest.approx(here, rel=0.1)
    assert files.free_bytes("not/there/yet") == pytest.approx(files.free_bytes(os.getcwd()), rel=0.1)


def test_only_a_directory_is_synced_and_no_link_to_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    files.sync_directory(str(tmp_path))
    files.sync_directory(os.fsencode(tmp_path))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(OSError, match=name):
            files.sync_directory(str(tmp_path / name))
    assert synced == [str(tmp_path)] * 2
