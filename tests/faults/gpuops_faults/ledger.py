# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was struck already: a line of JSON for each fault, so that a run that was broken off goes on where it stopped.

Lines are only ever appended. A fault is known by the code that was struck, containerd's generation, step, fault and
number of the call; of several lines of one the last counts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Collection, Iterator
from typing import Any

from gpuops_faults.strike import Outcome

Key = tuple[str, str, str, str, int]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One fault, when it was struck."""

    #: :func:`digest` of the code.
    code: str
    containerd: str
    step: str
    fault: str
    number: int
    call: str
    first: str
    wrong: str
    seconds: dict[str, float]

    @property
    def key(self) -> Key:
        """What makes it the same fault as that of another line."""
        return self.code, self.containerd, self.step, self.fault, self.number


def digest(plugins: pathlib.Path) -> str:
    """Of all code below the directory, names and contents."""
    found = hashlib.sha256()
    for path in sorted(plugins.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(plugins)} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:12]


class Ledger:
    """A file, which need not exist yet."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """All lines, in their order; the last may be one that was not written to its end."""
        if not self._path.exists():
            return []
        return list(_parsed(self._path.read_text(encoding="utf-8")))

    def add(self, code: str, containerd: str, outcome: Outcome) -> Entry:
        """Append what came of a fault; it is on the disk afterwards."""
        entry = Entry(code, containerd, **dataclasses.asdict(outcome))
        line = json.dumps(dataclasses.asdict(entry)).encode() + b"\n"
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "ab+") as file:
                if file.tell() and not _ends_whole(file):
                    file.write(b"\n")
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        return entry


def latest(entries: Collection[Entry]) -> dict[Key, Entry]:
    """The one that counts, of each fault."""
    return {entry.key: entry for entry in entries}


def _ends_whole(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _parsed(text: str) -> Iterator[Entry]:
    for line in text.splitlines():
        try:
            values: dict[str, Any] = json.loads(line)
        except ValueError:
            # What a run that was killed has left of a line.
            continue
        yield Entry(**values)
