# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether several threads are to write a workload's memory while CRIU waits; nothing here looks at its files."""

from __future__ import annotations

import os

AUTO, ALWAYS, NEVER = "auto", "always", "never"
#: With two, CRIU's one thread was as fast as the writers (docs/performance.md).
_PROCESSORS = 4
#: Bytes; below it CRIU is done before a helper has begun.
_WORTH_IT = 256 << 20
#: More do not get a host's memory to work harder.
_MOST_WRITERS = 16


def refusal(mode: str, size: int, staged: bool) -> str:
    """Why CRIU is to restore all ``size`` bytes, empty where it need not; ``staged``: from the staged files."""
    processors = _processors()
    if mode == NEVER:
        return "parallel_memory is never"
    if not staged:
        return "the checkpoint is not restored from its staged files"
    if mode == AUTO and processors < _PROCESSORS:
        return f"the node has {processors} processors, and it begins to help with {_PROCESSORS}"
    if mode == AUTO and size < _WORTH_IT:
        return f"the checkpoint is smaller than {_WORTH_IT >> 20} MiB"
    return ""


def writers() -> int:
    """How many threads will write."""
    return min(_MOST_WRITERS, _processors())


def _processors() -> int:
    return len(os.sched_getaffinity(0))
