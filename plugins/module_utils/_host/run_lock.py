# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run at a time for a container, and none that takes away what another reads: locks that die with their process.

A file below /run for each thing, locked by flock(2): exclusively by whoever changes the thing, shared by those who only
need it to stay. Each holder has a line of JSON in it, so that the one who waits can say for whom. The last holder
removes the file; one that a killed run has left is locked by nobody, and goes with the next change of anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

from .._core import state_dir, text
from .._core.errors import RETRYABLE, ConflictError
from . import processes

_POLL_SECONDS = 0.05
#: Bytes of a file that are looked at.
_LONGEST = 1 << 20
#: Checkpoints are staged for all namespaces of containerd alike.
ALL = "all"


@dataclass(frozen=True)
class Subject:
    """What a run works on."""

    kind: str
    #: containerd's, or :data:`ALL` for what they share.
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}"


def default_root() -> str:
    """The directory of the locks."""
    return state_dir.runtime_dir("locks")


def changing(namespace: str, container_id: str, what: str, seconds: float) -> contextlib.AbstractContextManager[None]:
    """No other run is at work on the container while the block lasts; see :func:`held`."""
    return held(Subject("container", namespace, container_id), what, seconds)


def kept(digest: str, seconds: float) -> contextlib.AbstractContextManager[None]:
    """No other run takes the image away while the block lasts, nor what is staged of it; see :func:`held`."""
    return held(Subject("image", ALL, digest), "restores from it", seconds, shared=True)


def removing(digest: str, seconds: float) -> contextlib.AbstractContextManager[None]:
    """Nobody restores from the image while the block lasts; see :func:`held`."""
    return held(Subject("image", ALL, digest), "removes it", seconds)


@contextlib.contextmanager
def held(
    subject: Subject,
    what: str,
    seconds: float,
    shared: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock of ``subject`` for the block, in which ``what`` is done to it.

    Waits ``seconds`` for other runs. Raises ConflictError ``busy``, which says who is at work since when.
    """
    root = default_root()
    path = state_dir.capture_dir(os.path.join(root, subject.kind), subject.namespace, subject.name)
    descriptor = _locked(path, root, subject, seconds, shared, clock, sleep)
    try:
        os.write(descriptor, _line(what))
        yield
    finally:
        _release(descriptor, path, root, shared)


def _locked(
    path: str,
    root: str,
    subject: Subject,
    seconds: float,
    shared: bool,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> int:
    give_up = clock() + seconds
    while True:
        descriptor = _open(path, root)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                if not shared:
                    os.ftruncate(descriptor, 0)
                return descriptor
            # The last holder has taken the file away between open and lock.
            os.close(descriptor)
            continue
        except BlockingIOError as error:
            if clock() >= give_up:
                raise _busy(subject, _holder(descriptor)) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        sleep(_POLL_SECONDS)


def _open(path: str, root: str) -> int:
    while True:
        state_dir.make_private(os.path.dirname(path), os.path.dirname(root))
        with contextlib.suppress(FileNotFoundError):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            return os.open(path, flags, 0o600)


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _release(descriptor: int, path: str, root: str, shared: bool) -> None:
    try:
        # What others share is theirs to remove.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        if not shared or _is_at(descriptor, path):
            os.unlink(path)
            state_dir.prune(os.path.dirname(path), os.path.dirname(root))
    finally:
        os.close(descriptor)
    if not shared:
        _remove_abandoned(root)


def _remove_abandoned(root: str) -> None:
    """The files of killed runs: what nobody has locked."""
    for path in glob.iglob(os.path.join(glob.escape(root), "*", "*", "*")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # its holder has removed it meanwhile, or it is none of ours
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                os.unlink(path)
                state_dir.prune(os.path.dirname(path), os.path.dirname(root))
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def _line(what: str) -> bytes:
    pid = os.getpid()
    found = {"pid": pid, "start_time": processes.start_time(pid), "what": what, "since": text.utc_now()}
    return json.dumps(found).encode() + b"\n"


def _holder(descriptor: int) -> dict[str, Any] | None:
    """The first of those in the file who live."""
    for line in os.pread(descriptor, _LONGEST, 0).splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found: dict[str, Any] = json.loads(line)
            if processes.start_time(int(found["pid"])) == found["start_time"]:
                return {key: found[key] for key in ("pid", "what", "since")}
    return None


def _busy(subject: Subject, holder: dict[str, Any] | None) -> ConflictError:
    who = f" ({holder['what']}, pid {holder['pid']}, since {holder['since']})" if holder else ""
    return ConflictError(
        "busy",
        f"Another run{who} is at work on {subject}; this one has changed nothing of it.",
        "Wait until it has ended, then run again.",
        outcome=RETRYABLE,
        details=holder,
    )
