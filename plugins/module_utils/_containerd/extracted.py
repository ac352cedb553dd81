# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of process memory that containerd makes on the descriptor route and never removes.

For a task from a checkpoint's blob, containerd extracts the blob into ``ctrd-checkpoint*`` in its directory for
temporary files (``os.MkdirTemp`` in its runtime's code, 1.6 to 2.1) while Tasks/Create lasts; CRIU reads it during
Tasks/Start. Anybody can make directories of such a name there, so a copy is ours when it is root's, came while we held
the lock on such creations, and has the size of our checkpoint. What was there before is noted on the disk first, so
that the copy of a run that was killed, or of a node that lost its power, is still found.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat as stat_module
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

from .._core import state_dir
from .._core.errors import RETRYABLE, NodeError
from . import daemon as containerd_daemon
from .client import Client

#: In a container's work directory: what lay there before its task was created.
NOTE = "extracted.json"
_PREFIX = "ctrd-checkpoint"
#: Bytes that a member of a tar may have beside its content: headers of three kinds and padding.
_OVERHEAD = 4 * 512
_SLACK = 64 << 10
#: Seconds in which a copy has to stay as it is to count as finished, and for which that is waited for.
_QUIET_SECONDS = 1.0
_WAIT_SECONDS = 30.0


def present(client: Client) -> frozenset[str]:
    """Directories into which containerd has extracted checkpoints, through its own root; root's alone.

    Raises NodeError ``daemon_unavailable``.
    """
    environment = containerd_daemon.daemon_environment(client)
    roots = {environment.get("XDG_RUNTIME_DIR", ""), environment.get("TMPDIR", ""), "/tmp"}
    try:
        daemon = client.peer_pid()
    except OSError as error:
        raise NodeError(
            "daemon_unavailable",
            f"Nobody answers on the containerd socket {client.address}: {error.strerror or error}.",
            "Look at the state of the containerd service on this node and start it.",
            outcome=RETRYABLE,
        ) from error
    found: set[str] = set()
    for root in roots:
        base = f"/proc/{daemon}/root{root}"
        if root and os.path.isdir(base):
            found.update(path for name in os.listdir(base) if _is_copy(path := os.path.join(base, name)))
    return frozenset(found)


class Extraction:
    """From before a task is created from a checkpoint's blob until nobody reads the copy any more; then it goes.

    ``size``: bytes of the blob. The note is locked for as long as this is entered.
    """

    def __init__(self, client: Client, staging_dir: str, work: str, size: int) -> None:
        self._client, self._staging_dir, self._work, self._size = client, staging_dir, work, size
        self._descriptor = -1
        self.warnings: list[str] = []

    def __enter__(self) -> Extraction:
        state_dir.make_private(self._work, self._staging_dir)
        path = os.path.join(self._work, NOTE)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_unused: object) -> None:
        try:
            self.warnings = _remove_noted(self._client, self._staging_dir, self._work)
        finally:
            os.close(self._descriptor)

    @contextlib.contextmanager
    def creating(self) -> Iterator[None]:
        """For the call that creates the task; one at a time on a node, so that copies are told apart."""
        with _lock(self._staging_dir):
            before = sorted(map(_in_root, present(self._client)))
            self._write({"before": before, "size": self._size})
            yield
            ours = sorted(map(_in_root, _ours(self._client, before, self._size)))
            self._write({"before": before, "size": self._size, "ours": ours})

    def _write(self, note: dict[str, Any]) -> None:
        data = json.dumps(note).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        os.fsync(self._descriptor)


def remove_abandoned(
    client: Client,
    staging_dir: str,
    work: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Remove the copy of a run that was broken off, once containerd no longer writes it; returns warnings.

    Of a run that is still at it nothing is touched.
    """
    try:
        descriptor = os.open(os.path.join(work, NOTE), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(NodeError):
            _await_quiet(client, staging_dir, work, clock, sleep)
        return _remove_noted(client, staging_dir, work)
    except BlockingIOError:
        return []
    finally:
        os.close(descriptor)


def is_abandoned(work: str) -> bool:
    """Whether a work directory has the note of a run that was broken off."""
    try:
        descriptor = os.open(os.path.join(work, NOTE), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Note:
    """What was there before, by the paths that the daemon has for them."""

    before: list[str]
    #: Of the checkpoint's tar.
    size: int
    #: Empty until it is known.
    ours: list[str]


def _read(work: str) -> _Note | None:
    try:
        with open(os.path.join(work, NOTE), encoding="utf-8") as stream:
            found = json.load(stream)
        return _Note(list(found["before"]), int(found["size"]), list(found.get("ours", ())))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def noted(client: Client, work: str) -> list[str]:
    """The copies that the note in a work directory speaks of; empty without one. Raises NodeError."""
    note = _read(work)
    if note is None:
        return []
    if note.ours:
        return sorted(path for path in present(client) if _in_root(path) in note.ours)
    return _ours(client, note.before, note.size)


def _remove_noted(client: Client, staging_dir: str, work: str) -> list[str]:
    try:
        with _lock(staging_dir):
            left = [path for path in noted(client, work) if not _remove(path)] or _unclear(client, work)
    except NodeError as error:
        # This runs on the way out of a failure, which says more than that the daemon is gone.
        return [f"Whether containerd left a copy of process memory ({_PREFIX}*) is not known: {error.message}"]
    if not left:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(work, NOTE))
    return [f"containerd left a copy of process memory in {path}; remove it." for path in left]


def _await_quiet(
    client: Client, staging_dir: str, work: str, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    give_up = clock() + _WAIT_SECONDS
    with _lock(staging_dir):
        sizes = {path: _content(path) for path in noted(client, work)}
    while sizes and clock() < give_up:
        sleep(_QUIET_SECONDS)
        again = {path: _content(path) for path in sizes}
        if again == sizes:
            return
        sizes = again


def _unclear(client: Client, work: str) -> list[str]:
    """Copies that came since, one of which may be ours, where nothing tells which."""
    note = _read(work)
    if note is None or note.ours:
        return []
    came = sorted(path for path in present(client) if _in_root(path) not in note.before)
    return [] if any(_fits(path, note.size) for path in came) else came


def _ours(client: Client, before: list[str], size: int) -> list[str]:
    """Those that came since; of several those of the right size, while a single one may not be whole."""
    came = sorted(path for path in present(client) if _in_root(path) not in before)
    return came if len(came) == 1 else [path for path in came if _fits(path, size)]


def _fits(path: str, size: int) -> bool:
    files, total = _content(path)
    return total <= size <= total + files * _OVERHEAD + _SLACK


def _content(path: str) -> tuple[int, int]:
    """Number of files and sum of their sizes."""
    files = total = 0
    for directory, _directories, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(directory, name)).st_size
                files += 1
    return files, total


def _is_copy(path: str) -> bool:
    if not os.path.basename(path).startswith(_PREFIX):
        return False
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat_module.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _remove(path: str) -> bool:
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _in_root(path: str) -> str:
    """The path as the daemon sees it, which a restart of the daemon does not change."""
    return path.split("/root", 1)[1]


@contextlib.contextmanager
def _lock(staging_dir: str) -> Iterator[None]:
    """Held by whoever has containerd extract a checkpoint, and by whoever looks for what was extracted."""
    try:
        descriptor = os.open(os.path.join(staging_dir, "work"), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
