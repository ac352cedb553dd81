# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shape of one entry of the diagnosis table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from re import Pattern

ROOT = 0
"""The line itself says what is wrong."""
LIKELY = 1
"""The line says what failed; why is probable, not certain."""
SYMPTOM = 2
"""The line is mostly the consequence of something else in the log."""
GENERIC = 3
"""Almost every failure of the kind ends with such a line."""

WHERE = ("dump", "restore", "cuda", "containerd")


@dataclass(frozen=True)
class Entry:
    """``kind`` is unique and stable, ``category`` groups kinds, ``rank`` orders matches (lower wins).

    The entry matches if one line matches one of ``any_of`` and, for each pattern of ``also``, some line of
    the log matches it. Warnings count for ``also`` only: CRIU warns about much that does no harm. A non-empty
    ``where`` limits the entry to logs of those origins (when the caller names the origin).
    """

    kind: str
    category: str
    rank: int
    outcome: str
    cause: str
    remedy: str
    any_of: tuple[Pattern[str], ...]
    also: tuple[Pattern[str], ...] = ()
    where: frozenset[str] = frozenset()


def entry(
    kind: str,
    category: str,
    rank: int,
    outcome: str,
    cause: str,
    remedy: str,
    *patterns: str,
    also: tuple[str, ...] = (),
    where: tuple[str, ...] = (),
) -> Entry:
    """An :class:`Entry` from pattern texts (regular expressions, searched for without regard to case)."""
    return Entry(
        kind=kind,
        category=category,
        rank=rank,
        outcome=outcome,
        cause=cause,
        remedy=remedy,
        any_of=tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns),
        also=tuple(re.compile(pattern, re.IGNORECASE) for pattern in also),
        where=frozenset(where),
    )
