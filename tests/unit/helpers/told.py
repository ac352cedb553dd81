# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What long calls tell of how far they are."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import progress


@dataclasses.dataclass
class Told:
    """One phase of a workload."""

    name: str
    phase: str
    total: int
    bytes: int = 0
    #: What all from here on was said to take.
    expected: float | None = None


def listen(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    """From now on all that is told is in the list, in its order."""
    told: list[Told] = []

    class Track(progress.Track):
        def __init__(self, name: str = "", **more: Any) -> None:
            super().__init__(name, **more)
            self._name_told, self._told = name, Told(name, "", 0)
            self._expected: float | None = None

        def phase(self, name: str, total: int = 0, measure: Callable[[], int] | None = None) -> None:
            self._told = Told(self._name_told, name, total, expected=self._expected)
            told.append(self._told)

        def expect(self, seconds: float | None) -> None:
            self._expected = seconds

        def add(self, count: int) -> None:
            self._told.bytes += count

    monkeypatch.setattr(progress, "Track", Track)
    return told
