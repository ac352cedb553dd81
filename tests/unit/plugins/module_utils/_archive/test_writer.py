# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives are written whole or not at all, each with its record; what a killed run left goes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._archive import (
    compression,
    existing,
    record as archive_record,
    writer as archive_writer,
)
from ansible_collections.gpuops.restore.plugins.module_utils._archive.tar_writer import Item, tar_size
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    ConflictError,
    InputError,
    NodeError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._streams import zstd
from ansible_collections.gpuops.restore.tests.unit.helpers.written_archives import (
    BLOBS,
    DIGEST,
    ITEMS,
    KINDS,
    record_of,
    tar_of,
    write,
)


def partial(path: Path) -> Path:
    return Path(archive_writer.partial_path(str(path)))


@pytest.mark.parametrize("kind", KINDS)
def test_written_as_a_tar_that_everybody_reads(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar"
    written = write(path, kind)
    assert path.stat().st_mode & 0o777 == record_of(path).stat().st_mode & 0o777 == 0o600
    data = tar_of(path, kind)
    assert len(data) == tar_size(ITEMS)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    assert {name: found[name] for name in BLOBS} == BLOBS
    assert list(found) == [item.name for item in ITEMS]
    assert existing.kind(str(path)) == kind
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.gpuops.json"]
    assert written.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert written.matches(path.stat())
    assert archive_record.read(str(path)) == written
    assert written.checkpoint == DIGEST


def test_the_same_members_give_the_same_file(tmp_path: Path) -> None:
    for kind in ("none", "gzip"):
        assert len({write(tmp_path / name, kind).digest for name in ("a", "b")}) == 1


@pytest.mark.parametrize("name", [".a.tar.partial", f".a.tar.{12 * 'b'}.partial"], ids=["now", "0.1.0"])
def test_what_a_killed_run_left_goes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tar"
    write(path, "none")
    whole = path.read_bytes()
    for left in (whole[:5000], b"of another archive" * 5000):
        path.unlink()
        (tmp_path / name).write_bytes(left)
        assert archive_writer.partials(str(path)) == [str(tmp_path / name)]
        write(path, "none")
        assert path.read_bytes() == whole
        assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.gpuops.json"]
    (tmp_path / name).write_bytes(b"left")
    archive_writer.remove_partial(str(path))
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.gpuops.json"]


def test_what_is_left_between_clearing_and_writing_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    write(path, "none")
    whole = path.read_bytes()
    # Another run began after ours had cleared up, and was killed.
    monkeypatch.setattr(archive_writer, "remove_partial", lambda _path: partial(path).write_bytes(b"x" * 50000))
    write(path, "none")
    assert path.read_bytes() == whole


def test_files_of_others_stay(tmp_path: Path) -> None:
    others = [".b.tar.partial", ".a.tar.partial.old", f".a.tar.{12 * 'g'}.partial", "a.tar.partial", ".aXtar.partial"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    write(tmp_path / "a.tar", "none")
    assert all((tmp_path / name).read_bytes() == b"mine" for name in others)


KILLED = """
import sys, time
from ansible_collections.gpuops.restore.tests.unit.helpers import written_archives
from ansible_collections.gpuops.restore.plugins.module_utils._archive import writer

def read(item):
    yield from written_archives.read(item) if item.size < 9000 else hang(item)

def hang(item):
    yield written_archives.BLOBS[item.name][:4000]
    print("half", flush=True)
    time.sleep(600)

writer.write(sys.argv[1], written_archives.DIGEST, written_archives.ITEMS, read, sys.argv[2])
"""


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_the_middle_and_finished(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tar"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path), kind], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"half\n"
        with pytest.raises(ConflictError) as caught:
            write(path, kind)
        assert (caught.value.code, caught.value.outcome) == ("archive_busy", RETRYABLE)
        process.send_signal(signal.SIGKILL)
    assert os.listdir(tmp_path) == [".a.tar.partial"]
    write(path, kind)
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.gpuops.json"]
    assert existing.find_export(str(path), DIGEST, ITEMS) == archive_record.read(str(path))


def failing(_item: Item) -> Iterable[bytes]:
    yield b"x"
    raise InputError("blob_missing", "It is gone.", "Get it.")


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_leaves_what_was_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    with pytest.raises(InputError, match="It is gone"):
        archive_writer.write(str(path), DIGEST, ITEMS, failing, kind)
    assert os.listdir(tmp_path) == []
    before = write(path, kind)
    with pytest.raises(InputError, match="It is gone"):
        archive_writer.write(str(path), DIGEST, ITEMS, failing, kind)
    assert sorted(os.listdir(tmp_path)) == ["a", "a.gpuops.json"]
    assert existing.find_export(str(path), DIGEST, ITEMS) == before


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        write(tmp_path / "none" / "a", "none")
    assert caught.value.code == "archive_directory_missing"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, call: str) -> None:
    """Whenever it shows: with the archive, or at last with its record."""
    original = getattr(os, call)
    for allowed in (0, 1):
        left = [allowed]

        def full(*args: object, left: list[int] = left) -> object:
            # Of the pipes to zstd nothing is said: those are not on the disk.
            if call == "write" and not os.path.isfile(f"/proc/self/fd/{args[0]}"):
                return original(*args)
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args)

        with monkeypatch.context() as patched:
            patched.setattr(os, call, full)
            with pytest.raises(NodeError) as caught:
                write(tmp_path / "a", kind)
        assert (caught.value.code, caught.value.outcome) == ("archive_no_space", RETRYABLE)
        assert os.listdir(tmp_path) == []


def test_zstd_that_fails_and_zstd_that_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "zstd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'zstd: disk on fire.' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    target = tmp_path / "out" / "a"
    target.parent.mkdir()
    monkeypatch.setattr(zstd, "library", lambda: None)
    for code, told in (("archive_write_failed", "disk on fire"), ("zstd_missing", "neither the zstd program nor")):
        with pytest.raises(NodeError, match=told) as caught:
            write(target, "zstd")
        assert caught.value.code == code
        assert os.listdir(target.parent) == []
        monkeypatch.setenv("PATH", "/nowhere")


@pytest.mark.every_python
def test_zstd_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "/nowhere")
        write(path, "zstd")
    write(tmp_path / "tar", "none")
    assert tar_of(path, "zstd") == (tmp_path / "tar").read_bytes()


def test_a_library_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NodeError, match="could not write the archive") as caught:
        list(compression.compressed([b"too short"], compression.ZSTD, 100))
    assert caught.value.code == "archive_write_failed"


def test_below_a_link_to_a_directory(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    write(tmp_path / "link" / "archive.tar", "none")
    assert sorted(os.listdir(tmp_path / "there")) == ["archive.tar", "archive.tar.gpuops.json"]


def test_two_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with open(partial(path), "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for act in (lambda: write(path, "none"), lambda: archive_writer.remove_partial(str(path))):
            with pytest.raises(ConflictError) as caught:
                act()
            assert caught.value.code == "archive_busy"
            assert partial(path).exists()
    write(path, "none")


def test_a_file_of_somebody_else_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = tmp_path / "a"
    partial(path).symlink_to(victim)
    with pytest.raises(NodeError):
        write(path, "none")
    partial(path).unlink()
    os.link(victim, partial(path))
    with pytest.raises(ConflictError):
        write(path, "none")
    partial(path).unlink()
    for link in (record_of(path), tmp_path / ".a.gpuops.json.partial"):
        link.symlink_to(victim)
    write(path, "none")
    assert not record_of(path).is_symlink()
    assert victim.read_text() == "mine"


def test_removed_with_all_that_lies_beside_it_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write(path, "none")
    ours = [".a.tar.partial", f".a.tar.{12 * 'b'}.partial", ".a.tar.gpuops.json.partial"]
    others = [".b.tar.partial", "a.tar.bak", "b.tar"]
    for name in [*ours, *others]:
        (tmp_path / name).write_bytes(b"memory")
    predicted = archive_writer.remove(str(path), True)
    assert path.exists() and len(os.listdir(tmp_path)) == 8
    assert archive_writer.remove(str(path), False) == predicted and len(predicted) == 5
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    assert archive_writer.remove(str(path), False) == []
    assert archive_writer.remove(str(tmp_path / "none" / "a.tar"), False) == []


def test_an_archive_that_is_being_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write(path, "none")
    with open(partial(path), "wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ConflictError) as caught:
            archive_writer.remove(str(path), False)
    assert (caught.value.code, caught.value.outcome) == ("archive_busy", RETRYABLE)
    assert path.exists() and partial(path).exists()


def test_what_is_no_file_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "a.tar").mkdir()
    for check in (True, False):
        with pytest.raises(ConflictError) as caught:
            archive_writer.remove(str(tmp_path / "a.tar"), check)
        assert caught.value.code == "archive_other_content"
