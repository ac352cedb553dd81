# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The small file on the node that says how far a call is; the controller reads it while the call lasts
(:mod:`_core.progress_lines`)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from . import state_dir
from .progress import Board

#: A file that nobody has written for so long is of a run that was killed.
_ABANDONED_SECONDS = 3600.0
_ID = re.compile(r"[0-9a-f]{32}\Z")


class ProgressFile:
    """One of them, readable for its owner alone."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = os.path.dirname(path)
        self._root = os.path.dirname(self._directory)

    def write(self, document: dict[str, Any]) -> None:
        """In place of what is there. Raises OSError."""
        state_dir.make_private(self._directory, self._root)
        _remove_abandoned(self._directory)
        partial = f"{self._path}.partial"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(partial, flags, 0o600), "w", encoding="utf-8") as stream:
                json.dump(document, stream)
            os.replace(partial, self._path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
            raise

    def remove(self) -> None:
        """The file, and its directories where they are empty then. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        state_dir.prune(self._directory, self._root)


def board(parameters: Mapping[str, Any]) -> Board:
    """Where the controller looks while a module with the options ``_options.PROGRESS`` runs, if it does."""
    name, seconds = parameters.get("progress_id") or "", parameters.get("progress") or 0
    if seconds <= 0 or not _ID.match(name):
        return Board()
    # More often than it looks, so that what it finds is not old. Another user than root has its files elsewhere.
    path = os.path.join(state_dir.runtime_dir("progress"), f"{name}.json")
    return Board(ProgressFile(path), max(seconds / 3, 0.5))


def _remove_abandoned(directory: str) -> None:
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_SECONDS:
                os.unlink(entry.path)
