# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import arriving
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._streams.tar_extract import FileStat

pytestmark = pytest.mark.every_python

DATA = {"inventory.img": b"i" * 100, "pages-1.img": b"p" * 5000}
FILES = {name: FileStat(len(data), 1_600_000_000_000_000_000 + len(data)) for name, data in DATA.items()}


class Sender:
    """``asked``: the files that were fetched; ``sent``: what differs from :data:`DATA`."""

    def __init__(self, **sent: bytes) -> None:
        self.asked: list[str] = []
        self._data = {**DATA, **{name.replace("_", "-") + ".img": data for name, data in sent.items()}}

    def __call__(self, name: str, _size: int) -> Iterator[bytes]:
        self.asked.append(name)
        data = self._data[name]
        yield from (data[start : start + 999] for start in range(0, len(data), 999))


def test_whole_with_their_times(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "_FLUSH_BYTES", 1000)
    (tmp_path / "of-somebody.img").write_bytes(b"x")
    (tmp_path / "below").mkdir()
    assert arriving.written(str(tmp_path), FILES, Sender()) == FILES
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == DATA
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_what_came_whole_is_not_fetched_again(tmp_path: pathlib.Path) -> None:
    arriving.written(str(tmp_path), FILES, Sender())
    # Of the size that it should have, but not finished: its time is another one.
    os.utime(tmp_path / "pages-1.img")
    again = Sender()
    assert arriving.written(str(tmp_path), FILES, again) == FILES
    assert again.asked == ["pages-1.img"]


@pytest.mark.parametrize("data", [b"p" * 4999, b"p" * 5001, b""])
def test_too_much_or_too_little(tmp_path: pathlib.Path, data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        arriving.written(str(tmp_path), FILES, Sender(pages_1=data))
    assert caught.value.code == "size_mismatch"
    # The next call does not take it for whole.
    assert arriving.written(str(tmp_path), FILES, Sender()) == FILES


def test_a_link_is_not_followed(tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    images = tmp_path / "images"
    images.mkdir()
    (images / "pages-1.img").symlink_to(outside)
    assert arriving.written(str(images), FILES, Sender()) == FILES
    assert outside.read_bytes() == b"kept"
