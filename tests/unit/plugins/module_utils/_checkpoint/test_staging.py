# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import (
    staged as staged_checkpoint,
    staging,
    staging_root,
)
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.staging_root import Waiting
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    ConflictError,
    InputError,
    NodeError,
    RestoreError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._core.files import sync_directory
from ansible_collections.gpuops.restore.tests.unit.helpers import threads
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import (
    END,
    chunked,
    digest,
    entry,
    header,
    tar,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.clock import Clock

pytestmark = pytest.mark.every_python

NAME = "ab" * 32
FILES = {
    "inventory.img": b"i" * 100,
    "descriptors.json": b"[]",
    "pages-1.img": random.Random(4).randbytes(5000),
    "sub/x.img": b"x",
}
TAR = tar(FILES)
NOW = Waiting(0)


def tree(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


def stage(root: Path, data: bytes = TAR, **more: Any) -> staged_checkpoint.Staged:
    options: dict[str, Any] = {
        "expected_digest": digest(data),
        "expected_size": len(data),
        "name": NAME,
        **more,
    }
    chunks = options.pop("chunks", None) or chunked(data, 1000)
    return staging.stage(chunks, root=str(root), **options)


def refused(root: Path, data: bytes = TAR, **more: Any) -> RestoreError:
    existed = root.exists()
    with pytest.raises(RestoreError) as error:
        stage(root, data, **more)
    assert error.value.message and error.value.remedy
    assert root.exists() == existed and not (existed and tree(root)), "something stayed behind"
    return error.value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def test_stages_and_finds_and_removes(root: Path) -> None:
    staged = stage(root)
    images = root / NAME / "images"
    assert staged == staged_checkpoint.Staged(str(images), digest(TAR), sum(map(len, FILES.values())), 4, True)
    assert {name: (images / name).read_bytes() for name in FILES} == FILES
    assert tree(images) == sorted([*FILES, "sub"])
    assert sorted(os.listdir(root / NAME)) == [staged_checkpoint.MARKER, "images"]
    assert sorted(os.listdir(root)) == [NAME]
    for path in (root, root / NAME, images, images / "sub"):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in (root / NAME / staged_checkpoint.MARKER, images / "pages-1.img"):
        assert path.stat().st_mode & 0o777 == 0o600
    found = staged_checkpoint.find(str(root), NAME)
    assert found is not None and not found.created and found.directory == staged.directory
    assert staging.remove(str(root), NAME) is True
    assert staging.remove(str(root), NAME) is False
    assert tree(root) == []
    assert staging_root.remove_root_if_empty(str(root)) is True
    assert staging_root.remove_root_if_empty(str(root)) is False
    assert not root.exists()


def test_twice_does_not_read_again(root: Path) -> None:
    def untouchable() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    first = stage(root)
    second = stage(root, chunks=untouchable())
    assert (first.created, second.created) == (True, False)
    assert (first.bytes, first.files, first.digest) == (second.bytes, second.files, second.digest)


def test_compressed_tars_are_taken_too(root: Path) -> None:
    assert stage(root, gzip.compress(TAR)).files == 4
    packed = subprocess.run(["zstd", "-q", "-c"], input=TAR, stdout=subprocess.PIPE, check=True).stdout
    assert stage(root, packed, name="cd" * 32).files == 4


def test_a_root_with_other_things_in_it_stays(root: Path) -> None:
    stage(root)
    (root / "receipts").mkdir()
    staging.remove(str(root), NAME)
    assert staging_root.remove_root_if_empty(str(root)) is False
    assert tree(root) == ["receipts"]


@pytest.mark.parametrize("missing", staged_checkpoint.REQUIRED)
def test_incomplete_criu_images(missing: str, root: Path) -> None:
    data = tar({name: content for name, content in FILES.items() if name != missing})
    error = refused(root, data)
    assert (error.code, error.details["missing"]) == ("criu_images_incomplete", [missing])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (TAR.rstrip(b"\0"), "tar_truncated"),
        (TAR[:3000], "tar_too_large"),
        (b"x" * 3000, "tar_not_a_tar"),
        (entry("../x", b"x") + END, "tar_unsafe_name"),
        (entry("x", kind=b"2", link="/etc/passwd") + END, "tar_unsafe_type"),
        (entry("x", kind=b"3") + END, "tar_unsafe_type"),
        (entry("x") * 2 + END, "tar_duplicate_name"),
        (gzip.compress(TAR, mtime=0)[:-9], "compression_truncated"),
    ],
    # What is in them differs from run to run.
    ids=["short", "cut", "none", "up", "link", "device", "twice", "cut-gzip"],
)
def test_hostile_tars_leave_nothing(data: bytes, code: str, root: Path) -> None:
    assert refused(root, data).code == code


def test_wrong_digest_and_size(root: Path) -> None:
    assert refused(root, expected_digest=digest(b"other")).code == "digest_mismatch"
    assert refused(root, expected_size=len(TAR) + 1).code == "size_mismatch"
    assert refused(root, expected_size=len(TAR) - 1).code == "size_mismatch"
    assert refused(root, expected_digest="sha256:x").code == "digest_invalid"


@pytest.mark.parametrize("name", ["", "../x", "AB" * 32, "ab" * 31, NAME + "\n"])
def test_names_are_digests(name: str, root: Path) -> None:
    for call in (staged_checkpoint.find, staging.remove):
        with pytest.raises(InputError) as error:
            call(str(root), name)
        assert error.value.code == "staging_name_invalid"


def test_space_is_asked_for_before_anything_is_read(root: Path) -> None:
    def untouchable() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    error = refused(root, chunks=untouchable(), reserve=1000, free_space=lambda path: len(TAR) + 999)
    assert isinstance(error, NodeError) and error.code == "staging_no_space"
    assert error.details == {"path": str(root), "needed_bytes": len(TAR) + 1000, "free_bytes": len(TAR) + 999}
    assert stage(root, reserve=1000, free_space=lambda path: len(TAR) + 1000).created


def test_bombs(root: Path) -> None:
    bomb = gzip.compress(tar({**FILES, "zeros": bytes(16 << 20)}))
    assert refused(root, bomb, reserve=0, free_space=lambda path: 8 << 20).code == "staging_no_space"
    assert refused(root, bomb, max_bytes=8 << 20).code == "tar_too_large"
    assert refused(root, bomb, max_ratio=20).code == "expansion_limit"
    assert stage(root, bomb).created


def test_a_disk_that_fills_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    error = refused(root)
    assert (error.code, error.outcome) == ("staging_no_space", RETRYABLE)
    monkeypatch.setattr(os, "pwrite", lambda *_args: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    assert refused(root).code == "staging_io"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_exception_in_the_stream_leaves_nothing(kind: type[BaseException], root: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield TAR[:5000]
        raise kind

    with threads.begun() as found, pytest.raises(kind):
        stage(root, chunks=interrupted(), expected_size=50 << 20)
    assert not root.exists()
    assert threads.ended(found)


@pytest.mark.parametrize("step", ["rename", "sync_directory"])
def test_an_interrupt_late_leaves_nothing(step: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, real = (os, os.rename) if step == "rename" else (staging, sync_directory)

    def interrupted(path: str, *more: str) -> None:
        if step == "rename" and ".partial-" in path and NAME in os.path.basename(more[0]):
            monkeypatch.undo()
            raise KeyboardInterrupt
        if path == str(root):  # after the rename: the last sync
            monkeypatch.undo()
            raise KeyboardInterrupt
        real(path, *more)

    monkeypatch.setattr(module, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage(root)
    assert not root.exists()


def _shorten(root: Path) -> None:
    path = root / NAME / "images/pages-1.img"
    os.truncate(path, 10)


def _touch(root: Path) -> None:
    os.utime(root / NAME / "images/pages-1.img", ns=(0, 0))


def _drop(root: Path) -> None:
    (root / NAME / "images/sub/x.img").unlink()


def _relink(root: Path) -> None:
    path = root / NAME / "images/inventory.img"
    path.rename(root / "elsewhere")
    path.symlink_to(root / "elsewhere")


def _link_like_the_file(root: Path) -> None:
    """A link whose own size and time are those of the file."""
    path = root / NAME / "images/inventory.img"
    stat = path.stat()
    path.unlink()
    path.symlink_to("./" * (stat.st_size // 2 - 1) + "xx")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns), follow_symlinks=False)
    assert path.lstat().st_size == stat.st_size


def _entry_of_another_kind(root: Path) -> None:
    path = root / NAME / staged_checkpoint.MARKER
    marker = json.loads(path.read_text())
    path.write_text(json.dumps({**marker, "files": {**marker["files"], "inventory.img": [100, 0]}}))


def _no_marker(root: Path) -> None:
    (root / NAME / staged_checkpoint.MARKER).unlink()


def _half_marker(root: Path) -> None:
    path = root / NAME / staged_checkpoint.MARKER
    path.write_bytes(path.read_bytes()[:-20])


def _other_name(root: Path) -> None:
    path = root / NAME / staged_checkpoint.MARKER
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "cd" * 32}))


@pytest.mark.parametrize(
    "damage",
    [
        _shorten,
        _touch,
        _drop,
        _relink,
        _link_like_the_file,
        _entry_of_another_kind,
        _no_marker,
        _half_marker,
        _other_name,
    ],
    ids=lambda f: f.__name__,
)
def test_a_damaged_one_is_absent_and_made_anew(damage: Callable[[Path], None], root: Path) -> None:
    stage(root)
    damage(root)
    assert staged_checkpoint.find(str(root), NAME) is None
    assert stage(root).created is True
    assert staged_checkpoint.find(str(root), NAME) is not None
    damage_free = root / NAME / "images/pages-1.img"
    assert damage_free.read_bytes() == FILES["pages-1.img"]
    assert staging.remove(str(root), NAME) is True
    assert [entry for entry in os.listdir(root) if entry != "elsewhere"] == []


def test_another_digest_under_the_name_is_replaced(root: Path) -> None:
    stage(root)
    other = tar({**FILES, "pages-1.img": b"other"})
    assert stage(root, other).created is True
    assert (root / NAME / "images/pages-1.img").read_bytes() == b"other"


# --- one that was broken off


def broken_off(root: Path, pid: int = 1) -> Path:
    """What a run that was killed has left."""
    images = root / f".{NAME}.partial-{pid}" / "images"
    images.mkdir(parents=True, mode=0o700)
    root.chmod(0o700)
    (images / "inventory.img").write_bytes(FILES["inventory.img"])
    (images / "pages-1.img").write_bytes(FILES["pages-1.img"][:3000])
    return images


def _nothing(images: Path) -> None:
    del images


def _other_bytes(images: Path) -> None:
    data = bytearray((images / "pages-1.img").read_bytes())
    data[1500] ^= 1
    (images / "pages-1.img").write_bytes(data)


def _longer(images: Path) -> None:
    (images / "inventory.img").write_bytes(b"i" * 10000)


def _holes(images: Path) -> None:
    """As a loss of power leaves it: the size is there, what was written is not."""
    with open(images / "pages-1.img", "wb") as stream:
        stream.truncate(5000)


def _linked(images: Path) -> None:
    (images / "pages-1.img").unlink()
    (images / "pages-1.img").symlink_to(images.parents[2] / "victim")
    (images.parents[2] / "victim").write_text("untouched")


def _hard_linked(images: Path) -> None:
    (images.parents[2] / "victim").write_text("untouched")
    os.link(images.parents[2] / "victim", images / "descriptors.json")


def _of_other_kinds(images: Path) -> None:
    (images / "pages-1.img").unlink()
    (images / "pages-1.img").mkdir()
    (images / "pages-1.img" / "x").write_text("x")
    (images / "sub").symlink_to("/etc")


def _more(images: Path) -> None:
    (images / "core-9.img").write_text("of a stream that nobody has verified")
    (images / "sub").mkdir()
    (images / "sub" / "y.img").write_text("y")
    (images / "other").mkdir()
    (images / "other" / "z.img").write_text("z")


@pytest.mark.parametrize(
    "damage",
    [_nothing, _other_bytes, _longer, _holes, _linked, _hard_linked, _of_other_kinds, _more],
    ids=lambda f: f.__name__,
)
def test_one_that_was_broken_off_is_gone_on_with_and_verified(damage: Callable[[Path], None], root: Path) -> None:
    damage(broken_off(root))
    assert stage(root).created
    images = root / NAME / "images"
    assert {name: (images / name).read_bytes() for name in FILES} == FILES
    assert tree(images) == sorted([*FILES, "sub"])
    assert os.listdir(root) == [NAME]
    assert all((images / name).stat().st_mode & 0o777 == 0o600 for name in FILES)
    victim = root.parent / "victim"
    assert not victim.exists() or victim.read_text() == "untouched"
    assert staged_checkpoint.find(str(root), NAME) is not None


def test_what_is_there_is_not_written_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def counting(descriptor: int, data: bytes, at: int) -> int:
        written.append(real(descriptor, data, at))
        return written[-1]

    broken_off(root)
    broken_off(root, 2)
    (root / f".{NAME}.partial-2" / "images" / "pages-1.img").unlink()
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", counting)
    stage(root)
    # The chunk in which it stopped is written whole.
    left = len(FILES["pages-1.img"]) - 3000 + len(FILES["descriptors.json"]) + len(FILES["sub/x.img"])
    assert left <= sum(written) < left + 1000


def test_what_is_there_needs_no_room_again(root: Path) -> None:
    broken_off(root)
    there = staging_root.disk_usage(str(root))
    assert stage(root, reserve=0, free_space=lambda _path: len(TAR) - there).created


def test_one_that_goes_on_and_fails_leaves_nothing(root: Path) -> None:
    broken_off(root)
    refused_data = bytearray(TAR)
    refused_data[1600] ^= 1
    with pytest.raises(RestoreError) as caught:
        stage(root, chunks=chunked(bytes(refused_data), 1000))
    assert caught.value.code == "digest_mismatch"
    assert os.listdir(root) == []


def test_whoever_stages_it_is_waited_for_as_long_as_he_gets_on(root: Path) -> None:
    partial = broken_off(root).parent
    descriptor = os.open(partial, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    clock = Clock()

    def pass_time(seconds: float) -> None:
        clock.sleep(max(seconds, 50.0))
        if clock() < 5000:
            os.utime(partial)

    with pytest.raises(ConflictError) as caught:
        stage(root, waiting=Waiting(600, clock, pass_time))
    assert (caught.value.code, caught.value.outcome) == ("busy", "retryable")
    assert 5400 <= clock() <= 5800, "600 s after the last sign of life"

    def end(seconds: float) -> None:
        clock.sleep(seconds)
        os.close(descriptor)

    assert stage(root, waiting=Waiting(600, clock, end)).created


def test_a_run_shows_that_it_gets_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it only compares, or writes a file of zeros."""
    monkeypatch.setattr(staging, "_BEAT_BYTES", 1000)
    beats: list[int] = []
    partial = staging_root.partial_path(str(root), NAME)

    def slowly() -> Iterator[bytes]:
        for chunk in chunked(TAR, 1000):
            os.utime(partial, ns=(0, 0))
            yield chunk
            beats.append(os.stat(partial).st_mtime_ns)

    stage(root, chunks=slowly())
    assert len(beats) > 5 and all(beats[1:-1])


@pytest.mark.parametrize("finish", ["stage", "remove"])
def test_leftovers_of_a_killed_run_go(finish: str, root: Path) -> None:
    script = (
        "import sys, time\n"
        "from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import staging\n"
        "def chunks():\n"
        "    yield sys.stdin.buffer.read(5000)\n"
        "    print('staging', flush=True)\n"
        "    time.sleep(60)\n"
        f"staging.stage(chunks(), expected_digest={digest(TAR)!r}, expected_size={len(TAR)},\n"
        f"               root={str(root)!r}, name={NAME!r})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    with child:
        child.stdin.write(TAR[:5000])
        child.stdin.flush()
        assert child.stdout.readline() == b"staging\n"
        assert any(".partial-" in name for name in os.listdir(root))
        for call in (lambda: stage(root, waiting=NOW), lambda: staging.remove(str(root), NAME, waiting=NOW)):
            with pytest.raises(ConflictError) as error:
                call()
            assert (error.value.code, error.value.outcome) == ("busy", "retryable")
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert any(".partial-" in name for name in os.listdir(root))
    if finish == "stage":
        assert stage(root).created
        assert os.listdir(root) == [NAME]
    assert staging.remove(str(root), NAME) is True
    assert os.listdir(root) == []


def test_partials_of_other_names_are_left_alone(root: Path) -> None:
    stage(root)
    other = root / f".{'cd' * 32}.partial-1"
    other.mkdir()
    staging.remove(str(root), NAME)
    assert other.exists()


def test_two_at_once_make_one(root: Path) -> None:
    results: list[bool] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        results.append(stage(root).created)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]
    assert os.listdir(root) == [NAME]


def test_the_wait_is_measured_by_the_clock_given(root: Path) -> None:
    stage(root)
    partial = root / f".{NAME}.partial-1"
    partial.mkdir()
    now = [0.0]
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        waiting = Waiting(5, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds))
        with pytest.raises(ConflictError):
            staging.remove(str(root), NAME, waiting=waiting)
    finally:
        os.close(descriptor)
    assert 5 <= now[0] < 6


def test_a_root_that_goes_away_in_between_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir(mode=0o700)
    real = staging_root._is_same_directory

    asked = []

    def vanish(descriptor: int, path: str) -> bool:
        asked.append(path)
        monkeypatch.undo()
        os.rmdir(root)  # as another run's clean-up would
        return real(descriptor, path)

    monkeypatch.setattr(staging_root, "_is_same_directory", vanish)
    assert stage(root).created
    assert asked == [str(root)]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_root_that_others_write_to_is_unsafe(mode: int, root: Path) -> None:
    root.mkdir()
    root.chmod(mode)
    for call in (
        lambda: stage(root),
        lambda: staged_checkpoint.find(str(root), NAME),
        lambda: staging.remove(str(root), NAME),
        lambda: staging_root.remove_root_if_empty(str(root)),
    ):
        with pytest.raises(NodeError) as error:
            call()
        assert error.value.code == "staging_dir_unsafe"


def test_other_unsafe_roots(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "link", tmp_path / "file", Path("relative")):
        with pytest.raises(NodeError) as error:
            stage(path)
        assert error.value.code == "staging_dir_unsafe"
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(NodeError) as error:
        stage(tmp_path / "real")
    assert error.value.code == "staging_dir_unsafe"


def test_a_root_without_a_parent(tmp_path: Path) -> None:
    with pytest.raises(NodeError) as error:
        stage(tmp_path / "no" / "root")
    assert error.value.code == "staging_dir_missing"


def test_sizes_that_lie_are_refused_before_they_are_written(root: Path) -> None:
    data = entry("inventory.img") + header("huge", 1 << 40)
    assert refused(root, data).code == "tar_too_large"
    assert refused(root, gzip.compress(data)).code == "staging_no_space"
