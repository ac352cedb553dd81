# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether several threads are to write a workload's memory while CRIU waits; nothing here looks at its files."""

from __future__ import annotations

import os
import re

AUTO, ALWAYS, NEVER = "auto", "always", "never"
#: With two, CRIU's one thread was as fast as the writers (docs/performance.md).
_PROCESSORS = 4
#: Bytes; below it CRIU is done before a helper has begun.
_WORTH_IT = 256 << 20
#: More do not get a host's memory to work harder.
_MOST_WRITERS = 16
#: The first CRIU that runs scripts when runc starts it.
_OLDEST_CRIU = (3, 19)


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


def problem(criu_version: str, work: str) -> str:
    """Why CRIU cannot start the writer here, empty where it can; ``work``: where the script would be."""
    found = re.match(r"(\d+)\.(\d+)", criu_version)
    if not found or (int(found.group(1)), int(found.group(2))) < _OLDEST_CRIU:
        return f"CRIU {criu_version or 'of an unknown version'} runs no scripts under runc; 3.19 does"
    while not os.path.isdir(work):
        work = os.path.dirname(work)
    if os.statvfs(work).f_flag & os.ST_NOEXEC:
        return f"the file system of {work} allows no programs (noexec)"
    return ""


def writers() -> int:
    """How many threads will write."""
    return min(_MOST_WRITERS, _processors())


def _processors() -> int:
    return len(os.sched_getaffinity(0))
