# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module that waits at functions until it is told to go on: what the child of warm.py calls first, so that what a
test does in the middle is in the middle, however fast or slow the machine is.

The functions are as in kill_at.py. They are come to one after the other: the second one counts once the first has been
left behind. At the Nth (0 is the first) there is a file ``PLACE.N.reached``, and ``PLACE.N.go`` is waited for.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
import time
from typing import Any

import kill_at


def arm(place: str, points: list[list[str]]) -> None:
    """``points``: function, and ``enter`` or ``#N`` (when it is entered for the Nth time since it counts)."""
    at = [0]
    lock = threading.Lock()

    def comes(mine: int, calls: itertools.count[int], when: str) -> bool:
        """Whether this is the moment; no other thread has it then."""
        with lock:
            if at[0] != mine or (when != "enter" and when != f"#{next(calls)}"):
                return False
            at[0] = -1
            return True

    def wait(mine: int) -> None:
        with open(f"{place}.{mine}.reached", "w", encoding="ascii"):
            pass
        while not os.path.exists(f"{place}.{mine}.go"):
            time.sleep(0.005)
        at[0] = mine + 1

    for number, (path, when) in enumerate(points):
        kill_at.replace(path, functools.partial(_waiting, number, when, comes, wait))


def _waiting(number: int, when: str, comes: Any, wait: Any, original: Any) -> Any:
    calls = itertools.count(1)

    @functools.wraps(original)
    def patient(*arguments: Any, **options: Any) -> Any:
        if comes(number, calls, when):
            wait(number)
        return original(*arguments, **options)

    return patient
