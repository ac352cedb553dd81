# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import random
import tarfile
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._streams.streams import ChunkSource
from ansible_collections.gpuops.restore.plugins.module_utils._streams.tar_extract import (
    FileStat,
    extract as tar_extract,
)
from ansible_collections.gpuops.restore.plugins.module_utils._streams.tar_reader import Limits
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import END, chunked, entry, tar

pytestmark = pytest.mark.every_python


def extract(data: bytes, directory: Path, chunk: int = 1 << 20) -> dict[str, FileStat]:
    return tar_extract(ChunkSource(chunked(data, chunk)), str(directory), Limits(), "The tar")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("chunk", [1, 512, 700, 1 << 20])
def test_random_trees_come_out_as_they_went_in(form: int, chunk: int, tmp_path: Path) -> None:
    dice = random.Random(form * 1000 + chunk)
    files = {}
    for number in range(12):
        long = form != tarfile.USTAR_FORMAT and number % 3 == 0
        name = f"d{number % 4}/" + "n" * (150 if long else 20) + f"-{number}-é.img"
        files[name] = dice.randbytes(dice.choice([0, 1, 511, 512, 513, 3000]))
    stats = extract(tar(files, form), tmp_path, chunk)
    assert {name: (tmp_path / name).read_bytes() for name in stats} == files
    assert all(stat.size == len(files[name]) for name, stat in stats.items())
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o700}


def test_directories_and_the_top_itself(tmp_path: Path) -> None:
    data = entry("./", kind=tarfile.DIRTYPE) + entry("./a/", kind=tarfile.DIRTYPE) + entry("./a/b", b"x") + END
    assert list(extract(data, tmp_path)) == ["a/b"]


@pytest.mark.parametrize("chunk", [1000, 65536, 100_000, 1 << 20])
def test_zeros_become_holes_and_read_the_same(chunk: int, tmp_path: Path) -> None:
    dice = random.Random(chunk)
    units = [dice.choice([bytes(65536), dice.randbytes(65536), bytes(65535) + b"\1"]) for _ in range(40)]
    content = b"".join(units) + bytes(1 << 20) + bytes(17)
    extract(tar({"pages": content, "end": bytes(5)}), tmp_path, chunk)
    assert (tmp_path / "pages").read_bytes() == content
    assert (tmp_path / "end").read_bytes() == bytes(5)
    if chunk == 1 << 20:
        assert (tmp_path / "pages").stat().st_blocks * 512 < len(content) - (1 << 19)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_not_extracted(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        extract(entry("good", b"x") + entry("x", kind=kind, link="good") + END, tmp_path)
    assert error.value.code == "tar_unsafe_type"


@pytest.mark.parametrize(
    "data",
    [
        entry("a") + entry("a"),
        entry("a") + entry("./a"),
        entry("a") + entry("a/", kind=tarfile.DIRTYPE),
        entry("a") + entry("a/b"),
        entry("a/b") + entry("a"),
        entry("d/", kind=tarfile.DIRTYPE) + entry("d/", kind=tarfile.DIRTYPE),
    ],
)
def test_duplicate_names(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        extract(data + END, tmp_path)
    assert error.value.code == "tar_duplicate_name"


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    dice = random.Random(4)
    whole = tar({"a": b"x" * 700, "d/" + "b" * 200: b"y" * 100, "c": b""})
    for number in range(400):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data) - 8000)] = dice.randrange(256)
        top = tmp_path / str(number)
        top.mkdir()
        try:
            files = extract(bytes(data), top)
        except InputError:
            continue
        assert all((top / name).is_file() for name in files)
    assert all(path.name.isdigit() for path in tmp_path.iterdir())


def test_nothing_comes_of_an_unsafe_name(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        extract(entry("../x", b"x") + END, tmp_path)
    assert error.value.code == "tar_unsafe_name"
    assert not any(tmp_path.iterdir())
