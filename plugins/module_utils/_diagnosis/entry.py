# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shape of one entry of the diagnosis table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from re import Pattern

from .._core.errors import TERMINAL
from .._criu.known_limits import Limit

#: The line itself says what is wrong.
ROOT = 0
#: The line says what failed; why is probable, not certain.
LIKELY = 1
#: The line is mostly the consequence of something else in the log.
SYMPTOM = 2
#: Almost every failure of the kind ends with such a line.
GENERIC = 3

#: Origins of a log.
WHERE = ("dump", "restore", "cuda", "containerd")


@dataclass(frozen=True)
class Entry:
    """One known failure.

    The entry matches if the message of one line matches one of ``any_of`` and none of ``unless``, if that line names
    one of ``sources`` where it names a file of CRIU's source, and, for each pattern of ``also``, some line of the log
    matches it. Warnings and progress count for ``also`` only: CRIU warns about much that does no harm.
    """

    #: Unique and stable.
    kind: str
    #: Groups kinds.
    category: str
    #: ROOT to GENERIC; of several entries that match, the lowest wins.
    rank: int
    #: ``retryable``, ``terminal`` or ``unknown``.
    outcome: str
    cause: str
    remedy: str
    any_of: tuple[Pattern[str], ...]
    also: tuple[Pattern[str], ...] = ()
    #: Origins to which the entry is limited when the caller names the origin; empty: none.
    where: frozenset[str] = frozenset()
    #: What rules it out, in the same line.
    unless: tuple[Pattern[str], ...] = ()
    #: Files of CRIU's source, without their ending; empty: any. Lines of other programs name none.
    sources: frozenset[str] = frozenset()


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
    unless: tuple[str, ...] = (),
    sources: str = "",
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
        unless=tuple(re.compile(pattern, re.IGNORECASE) for pattern in unless),
        sources=frozenset(sources.split()),
    )


def of_limit(limit: Limit, category: str, rank: int) -> Entry:
    """The entry of something that is known of versions: nothing else helps than another one."""
    return entry(limit.kind, category, rank, TERMINAL, limit.cause, limit.remedy, *limit.patterns)
