# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A clock for code that waits."""

from __future__ import annotations

from typing import Callable


class Clock:
    """Time that passes only while somebody sleeps; at a given moment something happens, once."""

    def __init__(self, at: float = 0.0, act: Callable[[], object] | None = None) -> None:
        self.now, self._at, self._act = 0.0, at, act

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        if self._act is not None and self.now >= self._at:
            act, self._act = self._act, None
            act()
