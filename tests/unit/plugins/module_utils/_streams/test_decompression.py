# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._streams import decompression, zstd as streams_zstd
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import chunked

pytestmark = pytest.mark.every_python

DATA = random.Random(6).randbytes(300_000) + bytes(200_000)
NO_LIMIT = decompression.Expansion()


def zstd(data: bytes) -> bytes:
    assert shutil.which("zstd"), "these tests need the zstd program"
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture(autouse=True, params=["library", "program"])
def _decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds with either."""
    if request.param == "program":
        monkeypatch.setattr(streams_zstd, "library", lambda: None)
    else:
        assert streams_zstd.library() is not None


def expand(data: bytes, size: int = 7919, limit: decompression.Expansion = NO_LIMIT) -> bytes:
    return b"".join(decompression.decompressed(chunked(data, size), expansion=limit, what="It"))


def code_of(error: pytest.ExceptionInfo[InputError] | pytest.ExceptionInfo[NodeError]) -> str:
    assert error.value.message and error.value.remedy
    return error.value.code


@pytest.mark.parametrize("size", [1, 3, 65536, 10_000_000])
def test_decompresses_by_magic(size: int) -> None:
    data = DATA[-210_000:] if size < 10 else DATA
    for packed in (data, gzip.compress(data), zstd(data)):
        assert expand(packed, size) == data


def test_gzip_of_several_members_and_padding() -> None:
    packed = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two")
    for size in (1, 2, 1000):
        assert expand(packed + bytes(700), size) == b"onetwo"


def test_empty_chunks_are_not_the_end() -> None:
    for packed in (DATA, gzip.compress(DATA), zstd(DATA)):
        chunks = [b"", packed[:5000], b"", packed[5000:], b""]
        assert b"".join(decompression.decompressed(chunks, expansion=NO_LIMIT, what="It")) == DATA


def test_zstd_of_several_frames() -> None:
    assert expand(zstd(b"one") + zstd(DATA)) == b"one" + DATA


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_truncated_compression(pack: object) -> None:
    packed = pack(DATA)  # type: ignore[operator]
    for end in (20, len(packed) // 2, len(packed) - 1):
        with pytest.raises(InputError) as error:
            expand(packed[:end])
        assert code_of(error) == "compression_truncated"


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_damaged_compression(pack: object) -> None:
    packed = bytearray(pack(DATA))  # type: ignore[operator]
    packed[-3] ^= 0xFF  # the checksum
    with pytest.raises(InputError) as error:
        expand(bytes(packed))
    assert code_of(error) == "compression_invalid"


def test_gzip_with_something_behind_it() -> None:
    with pytest.raises(InputError) as error:
        expand(gzip.compress(b"one") + b"\0\0x")
    assert code_of(error) == "compression_invalid"


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_expansion_is_limited(pack: object) -> None:
    packed = pack(bytes(32 << 20))  # type: ignore[operator]
    for limit in (decompression.Expansion(max_bytes=4 << 20), decompression.Expansion(max_ratio=50)):
        with pytest.raises(InputError) as error:
            expand(packed, limit=limit)
        assert code_of(error) == "expansion_limit"


def test_zstd_that_is_not_there() -> None:
    with pytest.raises(NodeError) as error:
        list(decompression.decompressed([zstd(b"x")], expansion=NO_LIMIT, what="It", zstd_program="no-such-program"))
    assert code_of(error) == "zstd_missing"


def test_an_error_of_the_source_comes_through_zstd() -> None:
    def failing() -> Iterator[bytes]:
        yield zstd(DATA)[:1000]
        raise KeyError("source")

    with pytest.raises(KeyError):
        list(decompression.decompressed(failing(), expansion=NO_LIMIT, what="It"))


def children() -> set[str]:
    """This thread's, zombies as well."""
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text(encoding="ascii").split())


def test_a_zstd_that_is_left_early_ends() -> None:
    data = zstd(DATA * 20)
    descriptors, before = set(os.listdir("/proc/self/fd")), children()
    stream = decompression.decompressed([data], expansion=NO_LIMIT, what="It")
    next(stream)
    stream.close()
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert not children() - before
