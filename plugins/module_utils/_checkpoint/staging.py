# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Staging a checkpoint: its CRIU files, verified, in a directory as :mod:`_checkpoint.staged` describes it.

A crash at any moment leaves either a whole staged checkpoint or a partial one that the next call for this name goes on
with: what lies there already is compared with the stream, and only what differs is written. Every file, every
directory and the marker are synced before the one rename that makes it visible. fsync per file, not syncfs: that would
also wait for whatever else the node writes (an image pull, another container).

Locks leave no file behind: a builder holds flock on its partial directory; finding out who builds, and
starting to, happens under flock on the root directory, which nobody holds while waiting.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Callable

from .._core.errors import RETRYABLE, InputError, NodeError, is_full
from .._core.files import RESERVE, free_bytes, sync_directory
from .._core.text import check_digest
from .._streams.decompression import Expansion, compression, decompressed, peek
from .._streams.streams import ChunkSource, verified
from .._streams.tar_extract import FileStat, extract
from .._streams.tar_reader import Limits
from . import arriving, staged as staged_checkpoint, staging_root
from .staged import FORMAT, IMAGES, MARKER, ONLY_COPY, REQUIRED, Staged, check_name
from .staging_root import Waiting

_TAR_OVERHEAD = 64 << 20
_WAITING = Waiting()
#: Bytes after which it is shown that a run gets on.
_BEAT_BYTES = 16 << 20


def stage(
    chunks: Iterable[bytes],
    *,
    expected_digest: str,
    expected_size: int,
    root: str,
    name: str,
    max_bytes: int | None = None,
    max_ratio: int = Expansion.max_ratio,
    reserve: int = RESERVE,
    waiting: Waiting = _WAITING,
    free_space: Callable[[str], int] = free_bytes,
) -> Staged:
    """Unpack the CRIU tar in ``chunks`` (plain, gzip or zstd) to ``<root>/<name>/images``.

    ``expected_digest`` and ``expected_size`` (bytes) are of the bytes as they arrive. ``name``: hex digest of
    the checkpoint image. ``chunks`` is not touched when the checkpoint lies there already. ``max_bytes``: the
    most that the files may add up to (None: the free space less ``reserve``).

    On any exception nothing stays behind. Raises InputError: ``criu_images_incomplete``,
    ``staging_name_invalid``, ``size_mismatch``, ``digest_mismatch``, ``digest_invalid``, what
    ``_streams.tar_reader.members`` and ``_streams.decompression.decompressed`` raise; NodeError: ``staging_no_space``,
    ``staging_dir_missing``, ``staging_dir_unsafe``, ``staging_io``; ConflictError ``busy`` when another run works on it
    and gets no further for ``waiting.seconds``.
    """
    check_name(name)
    check_digest(expected_digest, "the CRIU images")
    what = f"The CRIU tar {expected_digest}"

    def fill(images: str, beat: Callable[[], None]) -> dict[str, FileStat]:
        # What an earlier run has written is there already.
        there = staging_root.disk_usage(images)
        space = _Space(root, expected_size, max_bytes, reserve, lambda path: free_space(path) + there)
        os.makedirs(images, 0o700, exist_ok=True)
        moving = _beating(chunks, beat)
        with closing(verified(moving, digest=expected_digest, size=expected_size, what=what)) as checked:
            files = _unpack(checked, images, what, space, expected_size, max_bytes, max_ratio, beat)
        _require(files, what)
        return files

    return _make(root, name, expected_digest, expected_size, waiting, fill)


def adopt(
    images: str,
    *,
    digest: str,
    size: int,
    root: str,
    name: str,
    only_copy_of: Mapping[str, str] | None = None,
    waiting: Waiting = _WAITING,
) -> Staged:
    """Make a directory of CRIU files on the file system of ``root`` the staged checkpoint ``name``.

    The files are moved, not copied, and made private and durable. ``digest`` and ``size`` (bytes) are of the tar that
    holds them, or of their list; then there is no other copy, and ``only_copy_of`` has ``namespace`` and ``container``.
    Raises as :func:`stage` does.
    """
    check_name(name)
    check_digest(digest, "the CRIU images")

    def fill(place: str, beat: Callable[[], None]) -> dict[str, FileStat]:
        files = _make_durable(images, beat)
        # What is not whole stays where it is.
        _require(files, f"The directory {images}")
        if os.path.lexists(place):
            shutil.rmtree(place)
        os.rename(images, place)
        return files

    return _make(root, name, digest, size, waiting, fill, only_copy_of)


def arrive(
    files: Mapping[str, FileStat],
    fetch: Callable[[str, int], Iterable[bytes]],
    *,
    digest: str,
    root: str,
    name: str,
    only_copy_of: Mapping[str, str],
    waiting: Waiting = _WAITING,
    free_space: Callable[[str], int] = free_bytes,
) -> Staged:
    """Have the ``files`` of another node's dump as the staged checkpoint ``name``, durable and with their times.

    ``fetch`` gives the bytes of one; what an earlier call has brought whole is not fetched again. ``digest``: of their
    list; for ``only_copy_of`` see :func:`adopt`. Raises as :func:`stage` does.
    """
    check_name(name)
    check_digest(digest, "the list of CRIU's files")
    size = sum(file.size for file in files.values())

    def fill(images: str, beat: Callable[[], None]) -> dict[str, FileStat]:
        there = staging_root.disk_usage(images)
        _Space(root, size, None, RESERVE, lambda path: free_space(path) + there)
        os.makedirs(images, 0o700, exist_ok=True)
        return arriving.written(images, files, lambda file, length: _beating(fetch(file, length), beat))

    return _make(root, name, digest, size, waiting, fill, only_copy_of)


def _make(
    root: str,
    name: str,
    digest: str,
    size: int,
    waiting: Waiting,
    fill: Callable[[str, Callable[[], None]], dict[str, FileStat]],
    only_copy_of: Mapping[str, str] | None = None,
) -> Staged:
    """The staged checkpoint ``name``, found or made.

    ``fill`` makes the directory that it is given, checks it, and calls what it is given whenever it got on.
    """
    with staging_root.opened(root, create=True) as directory:
        found, lock = _begin(directory, name, digest, waiting)
        if found is not None:
            return found
        partial = staging_root.partial_path(root, name)
        try:
            with _io_errors(root):
                files = fill(os.path.join(partial, IMAGES), lambda: directory.beat(name))
                _write_marker(partial, name, digest, size, files, only_copy_of)
                sync_directory(partial)
                with directory.locked():
                    os.rename(partial, os.path.join(root, name))
                sync_directory(root)
        except BaseException:
            directory.discard(name)
            raise
        finally:
            os.close(lock)
    total = sum(entry.size for entry in files.values())
    return Staged(os.path.join(root, name, IMAGES), digest, total, len(files), True)


def _beating(chunks: Iterable[bytes], beat: Callable[[], None]) -> Iterator[bytes]:
    """The same chunks; ``beat`` is called now and then."""
    moved = _BEAT_BYTES
    for chunk in chunks:
        yield chunk
        moved += len(chunk)
        if moved >= _BEAT_BYTES:
            beat()
            moved = 0


def _make_durable(images: str, beat: Callable[[], None]) -> dict[str, FileStat]:
    """Make the files of a directory private, and sync them."""
    os.chmod(images, 0o700)
    files = {}
    for name in sorted(os.listdir(images)):
        descriptor = os.open(os.path.join(images, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
            stat = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        files[name] = FileStat(stat.st_size, stat.st_mtime_ns)
        beat()
    sync_directory(images)
    return files


def remove(root: str, name: str, *, waiting: Waiting = _WAITING) -> bool:
    """Remove the staged checkpoint, damaged or not, and what killed runs left of it; False if there was
    nothing.

    Waits for a run that stages it as long as that gets on. ConflictError ``busy``, NodeError ``staging_dir_unsafe``,
    ``staging_io``.
    """
    check_name(name)
    if not staged_checkpoint.root_exists(root):
        return False
    directory = staging_root.Root(root, create=False)
    with _io_errors(root), directory.locked_when_idle(name, waiting) as left:
        for partial in left:
            shutil.rmtree(partial)
        return directory.remove_now(name) or bool(left)


def _begin(directory: staging_root.Root, name: str, digest: str, waiting: Waiting) -> tuple[Staged | None, int]:
    """What is staged already, or the locked descriptor of a new, empty partial directory."""
    with _io_errors(directory.path), directory.locked_when_idle(name, waiting) as left:
        found = staged_checkpoint.find(directory.path, name)
        if found is not None and found.digest == digest:
            for partial in left:
                shutil.rmtree(partial)
            return found, -1
        directory.remove_now(name)
        return None, directory.new_partial(name, left)


def _unpack(
    chunks: Iterable[bytes],
    images: str,
    what: str,
    space: _Space,
    size: int,
    max_bytes: int | None,
    max_ratio: int,
    beat: Callable[[], None],
) -> dict[str, FileStat]:
    head, stream = peek(chunks)
    # The tar's own headers, names and padding come on top of its files.
    plain_tar = compression(head) == "none"
    most = None if plain_tar else space.limit + _TAR_OVERHEAD
    bounds = [bound for bound in (max_bytes, size if plain_tar else None) if bound is not None]
    limits = Limits(max_total=min(bounds)) if bounds else Limits()
    with closing(decompressed(stream, expansion=Expansion(most, max_ratio), what=what)) as plain:
        # A little that arrives can be much that is written.
        return extract(ChunkSource(_beating(plain, beat)), images, limits, what, space.check_room)


class _Space:
    """Room for the files: checked before the first byte, and again at each file of a compressed tar."""

    def __init__(
        self, root: str, size: int, max_bytes: int | None, reserve: int, free_space: Callable[[str], int]
    ) -> None:
        self._root = root
        self._free = free_space(root)
        self._reserve = reserve
        room = max(0, self._free - reserve)
        self.limit = room if max_bytes is None else min(room, max_bytes)
        self.check_room(size)

    def check_room(self, total: int) -> None:
        if total + self._reserve > self._free:
            raise no_space(self._root, total + self._reserve, self._free)


def no_space(root: str, needed: int | None, free: int) -> NodeError:
    """The error for a full staging file system; bytes."""
    need = "more" if needed is None else f"{needed} bytes"
    return NodeError(
        "staging_no_space",
        f"Staging the checkpoint in {root} needs {need}, and {free} bytes are free there.",
        "Free space on that file system, or set staging_dir to a directory on a larger one.",
        outcome=RETRYABLE,
        details={"path": root, "needed_bytes": needed, "free_bytes": free},
    )


@contextmanager
def _io_errors(root: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise no_space(root, None, free_bytes(root)) from error
        raise NodeError(
            "staging_io",
            f"The staging directory {root} cannot be used: {error}.",
            "Check the file system under it and the rights of this user, or set staging_dir to another one.",
        ) from error


def _require(files: dict[str, FileStat], what: str) -> None:
    missing = [name for name in REQUIRED if name not in files]
    if missing:
        raise InputError(
            "criu_images_incomplete",
            f"{what} lacks {' and '.join(missing)}, without which nothing can be restored.",
            "Take the checkpoint again, and look for errors in the dump log of that time.",
            details={"missing": missing, "files": len(files)},
        )


def _write_marker(
    partial: str,
    name: str,
    digest: str,
    size: int,
    files: dict[str, FileStat],
    only_copy_of: Mapping[str, str] | None,
) -> None:
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "digest": digest,
        "size": size,
        "files": {file: {"size": stat.size, "mtime_ns": stat.mtime_ns} for file, stat in files.items()},
    }
    if only_copy_of is not None:
        document[ONLY_COPY] = dict(only_copy_of)
    path = os.path.join(partial, MARKER)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(document, stream, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
