# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turns of the dumps of this process that read the node's one configuration.

What is added there for one dump reaches every other that reads the file meanwhile: so those with the same lines go side
by side, those without any among them, and others wait.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence


class Turns:
    """Lets dumps begin that do not harm those under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: tuple[str, ...] = ()
        self._under_way = 0

    def begin(self, lines: tuple[str, ...]) -> None:
        """Wait until all that are under way have these lines."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way or self._lines == lines)
            self._lines = lines
            self._under_way += 1

    def end(self) -> None:
        """One of them is through."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()


#: Of this process.
TURNS = Turns()


class Turn:
    """That of one dump."""

    def __init__(self, turns: Turns = TURNS) -> None:
        self._turns = turns
        self._lines: tuple[str, ...] | None = None

    @contextlib.contextmanager
    def held(self, lines: Sequence[str]) -> Iterator[None]:
        """Have it while this is entered, at most."""
        self.take(lines)
        try:
            yield
        finally:
            self.end()

    def take(self, lines: Sequence[str]) -> None:
        """Have a turn with these lines, in place of one with others."""
        wanted = tuple(lines)
        if self._lines != wanted:
            self.end()
            self._turns.begin(wanted)
            self._lines = wanted

    def end(self) -> None:
        """Let others have theirs; nothing where it has ended."""
        if self._lines is not None:
            self._lines = None
            self._turns.end()
