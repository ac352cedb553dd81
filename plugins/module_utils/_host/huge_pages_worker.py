# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard of the node's huge pages: switches them, and puts them back when its standard input ends.

A process of its own, so that the setting also comes back when the module is killed. It imports nothing of this
collection (see :mod:`_core.helper_process`). Facts: kernel documentation, admin-guide/mm/transhuge.rst.

Several runs may want the switch at a time. Each guard holds a shared lock on the setting's directory; who leaves last
puts the value back that a note tells of, which lies there only as long as it is switched. Where all guards were killed
too, the next one does it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping

_ALWAYS, _MADVISE, _AUTO = "always", "madvise", "auto"
_PIECE = 1 << 20
#: Bytes of a sample; enough for a difference to show, and little enough for all of them to be held at a time.
_SIZES = {"small": 8 << 20, "huge": 16 << 20}
_SAMPLES = 2
#: Huge pages have to be this much faster, or the switch is not worth it.
_WORTH = 0.8


class Setting:
    """The kernel's switch, a file with its choices and brackets around the one that holds."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> str:
        with open(self._path, encoding="ascii") as stream:
            text = stream.read()
        return text.partition("[")[2].partition("]")[0] or text.strip()

    def write(self, value: str) -> None:
        with open(self._path, "w", encoding="ascii") as stream:
            stream.write(value)


class Shared:
    """What guards know of each other. The kernel's files serve as locks, so that nothing of ours stays."""

    def __init__(self, path: str, note: str, setting: Setting) -> None:
        self._setting = setting
        self._path = path
        self._note = note
        self._holders = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """No other guard changes anything meanwhile."""
        with open(self._path, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def restore_if_last(self) -> None:
        """Put the node's own value back unless another guard holds the switch. To be called in :meth:`exclusive`."""
        try:
            fcntl.flock(self._holders, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        try:
            with open(self._note, encoding="ascii") as stream:
                original = stream.read()
            # What somebody has set since is theirs.
            if original and self._setting.read() == _ALWAYS:
                self._setting.write(original)
            os.unlink(self._note)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(self._note))
        except FileNotFoundError:
            return
        finally:
            fcntl.flock(self._holders, fcntl.LOCK_UN)

    def switch(self) -> None:
        """Hold the switch, and turn it if nobody has. To be called in :meth:`exclusive`."""
        current = self._setting.read()
        if not os.path.exists(self._note) and current != _ALWAYS:
            os.makedirs(os.path.dirname(self._note), mode=0o700, exist_ok=True)
            # First the note, then the switch: a note too many does no harm.
            partial = f"{self._note}.{os.getpid()}"
            with open(partial, "w", encoding="ascii") as stream:
                stream.write(current)
            os.rename(partial, self._note)
        fcntl.flock(self._holders, fcntl.LOCK_SH)
        self._setting.write(_ALWAYS)

    def release(self) -> None:
        fcntl.flock(self._holders, fcntl.LOCK_UN)


def measure(setting: Setting) -> dict[str, float]:
    """Seconds to read cached bytes into fresh memory with small and with huge pages. Leaves the setting as it was.

    The seconds are for as many bytes. No memory is used twice: a virtual machine's host may have taken free memory back
    (free page reporting, by huge pages), and then the first touch is what costs.
    """
    largest = max(_SIZES.values())
    before = setting.read()
    seconds = {"small": 0.0, "huge": 0.0}
    areas = []
    file = _nameless_file()
    try:
        piece = os.urandom(_PIECE)
        for offset in range(0, largest, _PIECE):
            os.pwrite(file, piece, offset)
        try:
            for _round in range(_SAMPLES):
                for name, value in (("small", "never"), ("huge", _ALWAYS)):
                    setting.write(value)
                    area = mmap.mmap(-1, _SIZES[name], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                    areas.append(area)
                    seconds[name] += _fill(file, area) * largest / _SIZES[name]
        finally:
            setting.write(before)
            for area in areas:
                area.close()
    finally:
        os.close(file)
    return {name: round(value, 4) for name, value in seconds.items()}


def _nameless_file() -> int:
    # Not by tempfile and typing: they would take longer to load than the samples take.
    try:
        return os.open("/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return os.memfd_create("sample")  # a file system without nameless files


def _fill(file: int, area: mmap.mmap) -> float:
    begun = time.monotonic()
    with memoryview(area) as view:
        for offset in range(0, len(view), _PIECE):
            os.preadv(file, [view[offset : offset + _PIECE]], offset)
    return time.monotonic() - begun


def _serve(request: Mapping[str, str], answer: Callable[[Mapping[str, object]], None]) -> None:
    setting = Setting(request["setting"])
    shared = Shared(request["setting"], request["note"], setting)
    with shared.exclusive():
        shared.restore_if_last()
        was = setting.read()
        measured: dict[str, float] = {}
        wanted = request["mode"] == _ALWAYS
        # Where somebody has said never, they had a reason.
        if request["mode"] == _AUTO and was == _MADVISE:
            measured = measure(setting)
            wanted = measured["huge"] <= _WORTH * measured["small"]
        if wanted or was == _ALWAYS:
            # Where it is always anyhow, holding keeps another guard from putting back what it has switched itself.
            shared.switch()
    answer({"switched": wanted and was != _ALWAYS, "was": was, "measured": measured})
    sys.stdin.buffer.read()
    with shared.exclusive():
        shared.release()
        shared.restore_if_last()


def main() -> None:
    """One request, one answer, and the end of standard input."""

    def answer(message: Mapping[str, object]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    request = json.loads(sys.stdin.buffer.readline())
    try:
        _serve(request, answer)
    except OSError as error:
        answer({"failed": str(error)})


if __name__ == "__main__":
    main()
