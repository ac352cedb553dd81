# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._streams import streams
from ansible_collections.gpuops.restore.tests.unit.helpers import threads
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import chunked, digest

pytestmark = pytest.mark.every_python

DATA = random.Random(5).randbytes(300_000) + bytes(200_000)


def code_of(error: pytest.ExceptionInfo[InputError]) -> str:
    assert error.value.message and error.value.remedy
    return error.value.code


@pytest.mark.parametrize("size", [1, 511, 4096, len(DATA)])
def test_verified_passes_everything_through(size: int) -> None:
    data = DATA[: size * 300]
    out = streams.verified(chunked(data, size), digest=digest(data), size=len(data), what="It")
    assert b"".join(out) == data


@pytest.mark.parametrize("copies", [1, 12])  # below and above the size from which a thread hashes
def test_verified_finds_a_wrong_digest(copies: int) -> None:
    data = DATA * copies
    chunks = [data[:-1] + b"\1"]
    with pytest.raises(InputError) as error:
        list(streams.verified(chunks, digest=digest(data), size=len(data), what="It"))
    assert code_of(error) == "digest_mismatch"


@pytest.mark.parametrize("change", [-1, 1])
def test_verified_finds_a_wrong_size(change: int) -> None:
    with pytest.raises(InputError) as error:
        list(streams.verified([DATA], digest=digest(DATA), size=len(DATA) + change, what="It"))
    assert code_of(error) == "size_mismatch"


def test_verified_stops_an_endless_stream_at_its_size() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 100

    passed: list[bytes] = []
    with pytest.raises(InputError):
        passed.extend(streams.verified(endless(), digest=digest(b""), size=1000, what="It"))
    assert sum(map(len, passed)) <= 1000


@pytest.mark.parametrize("size", [1, 5, 100, 1000])
def test_sources_agree(size: int, tmp_path: Path) -> None:
    data = DATA[:900]
    path = tmp_path / "data"
    path.write_bytes(data)
    with path.open("rb") as stream:
        for source in (streams.ChunkSource(chunked(data, size)), streams.FileSource(stream.fileno())):
            assert source.read(10) == data[:10]
            assert source.skip(500) == 500
            assert b"".join(source.take(7)) == data[510:517]
            assert source.position == 517
            assert source.skip(1000) == 383
            assert source.read(1) == b""


ABANDONED = """
import itertools
from ansible_collections.gpuops.restore.plugins.module_utils._streams import streams

chunks = streams.verified(itertools.repeat(bytes(1 << 20)), digest="sha256:" + "0" * 64, size=1 << 40, what="It")
for _ in range({read}):
    next(chunks)
cycle = [chunks]
cycle.append(cycle)
print("done", flush=True)
"""


@pytest.mark.every_python
@pytest.mark.parametrize("read", [1, 20])
def test_a_stream_that_is_not_read_to_its_end_does_not_keep_the_process_from_ending(read: int) -> None:
    """As when another run has written the blob meanwhile: the module hung at its exit, and Ansible with it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", ABANDONED.format(read=read)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


@pytest.mark.parametrize("read", [1, 20])
def test_a_stream_that_is_closed_early_leaves_no_thread(read: int) -> None:
    with threads.begun() as found:
        chunks = streams.verified(iter([bytes(1 << 20)] * 30), digest="sha256:" + "0" * 64, size=1 << 40, what="It")
        for _ in range(read):
            next(chunks)
    assert len(found) == 1
    chunks.close()
    assert threads.ended(found)
