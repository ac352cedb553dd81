# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A short JSON list of what the last runs on this node took, to which several may add at a time.

Nothing here raises: whoever reads it can do without.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Sequence
from typing import Any

_MOST = 1 << 20


def load(file: str) -> list[Any]:
    """Its entries, the oldest first; empty where there is no such list. ``file``: "" for none."""
    found = read(file) if file else None
    return found if isinstance(found, list) else []


def add(file: str, entries: Sequence[Any], kept: int) -> None:
    """Add to it; the last ``kept`` entries stay."""
    if not file or not entries:
        return
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
        directory = os.open(os.path.dirname(file), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Of two runs at a time neither loses what the other has noted.
            fcntl.flock(directory, fcntl.LOCK_EX)
            partial = f"{file}.{os.getpid()}"
            with open(partial, "w", encoding="ascii") as stream:
                json.dump([*load(file), *entries][-kept:], stream)
            os.replace(partial, file)
        finally:
            os.close(directory)


def read(path: str) -> Any:
    """A small document, None where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.loads(stream.read(_MOST))
    except (OSError, ValueError):
        return None
