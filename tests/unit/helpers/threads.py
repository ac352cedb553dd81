# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which threads the code under test begins: those of servers come and go beside it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def begun() -> Iterator[list[threading.Thread]]:
    """What this thread itself begins within the block."""
    plain, own, found = threading.Thread.start, threading.current_thread(), []

    def start(thread: threading.Thread) -> None:
        if threading.current_thread() is own:
            found.append(thread)
        plain(thread)

    threading.Thread.start = start  # type: ignore[method-assign]
    try:
        yield found
    finally:
        threading.Thread.start = plain  # type: ignore[method-assign]


def ended(threads: list[threading.Thread]) -> bool:
    """Whether there were some, and all of them have ended, or do so now."""
    for thread in threads:
        thread.join(60)
    return bool(threads) and not any(thread.is_alive() for thread in threads)
