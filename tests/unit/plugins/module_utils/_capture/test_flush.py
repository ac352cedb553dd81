# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import flush
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers import threads


def test_pages_are_written_out_while_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    arrived = {name: threading.Event() for name in ("pages-1.img", "pages-2.img")}

    def sync(descriptor: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        seen.add(name)
        arrived[name].set()

    monkeypatch.setattr(os, "fdatasync", sync)
    (tmp_path / "core-1.img").write_bytes(b"small")
    with threads.begun() as found, flush.flushing(str(tmp_path), str(tmp_path)):
        for name, event in arrived.items():
            (tmp_path / name).write_bytes(b"pages")
            assert event.wait(20)
    assert seen == set(arrived)
    assert found and not any(thread.is_alive() for thread in found)


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, "staging_io"), (errno.ENOSPC, "staging_no_space")])
def test_what_the_disk_did_not_take_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    """Whoever syncs the file after that would be told that all is well."""
    tried = threading.Event()

    def sync(_descriptor: int) -> None:
        tried.set()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", sync)
    (tmp_path / "pages-1.img").write_bytes(b"pages")
    with pytest.raises(RestoreError) as caught, flush.flushing(str(tmp_path), str(tmp_path)):
        assert tried.wait(20)
    assert caught.value.code == code


def test_a_failure_of_the_dump_is_the_one_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), flush.flushing(str(tmp_path), str(tmp_path)):
        raise ZeroDivisionError


def test_a_directory_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    with (
        threads.begun() as found,
        pytest.raises(RestoreError) as caught,
        flush.flushing(str(tmp_path / "gone"), str(tmp_path)),
    ):
        assert threads.ended(found)
    assert caught.value.code == "staging_io" and "gone" in caught.value.message
