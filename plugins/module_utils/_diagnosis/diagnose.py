# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the error lines of a failed checkpoint or restore to one cause and one remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .._core.errors import UNKNOWN
from .._criu.log import clean, is_harmless, is_progress, is_warning
from .entry import WHERE, Entry
from .tables.files import FILES, MOUNTS
from .tables.gpu import GPU
from .tables.kernel import KERNEL
from .tables.network import NETWORK
from .tables.resources import RESOURCES
from .tables.runtime import RUNTIME

#: All entries. Of those that match the same line with the same rank, the earlier one wins.
TABLE: tuple[Entry, ...] = GPU + FILES + MOUNTS + NETWORK + RESOURCES + KERNEL + RUNTIME

UNKNOWN_KIND = "unknown"
_ERRORS = 40


@dataclass(frozen=True)
class Diagnosis:
    """Why it failed, as far as the log tells."""

    #: Stable; ``unknown`` if no entry matches.
    kind: str
    cause: str
    remedy: str
    #: ``retryable``, ``terminal`` or ``unknown``.
    outcome: str
    #: The line that matched, cleaned; empty if none did.
    line: str
    matched: bool
    #: The cleaned lines of the log in order, at most 40, without progress messages.
    errors: tuple[str, ...]
    #: Groups kinds.
    category: str = UNKNOWN_KIND


def diagnose(lines: Sequence[str], where: str | None = None) -> Diagnosis:
    """The best entry of the table over all ``lines`` (of a CRIU log, or messages of containerd, runc, CUDA).

    Best is the lowest rank, then the earliest line, then the order of the table. ``where`` names the origin:
    ``dump``, ``restore``, ``cuda`` or ``containerd``; anything else raises ``ValueError``.
    """
    if where is not None and where not in WHERE:
        raise ValueError(f"where has to be one of {', '.join(WHERE)}, not {where!r}.")
    split = [part for line in lines for part in line.splitlines()]
    cleaned = [text for text in (clean(line) for line in split) if text]
    best: tuple[int, int] | None = None
    chosen: Entry | None = None
    for candidate in TABLE:
        if where is not None and candidate.where and where not in candidate.where:
            continue
        at = _match(candidate, cleaned)
        if at is not None and (best is None or (candidate.rank, at) < best):
            best, chosen = (candidate.rank, at), candidate
    errors = _shown(clean(line) for line in split if not is_progress(line))
    if best is None or chosen is None:
        return _unknown(errors)
    return Diagnosis(
        kind=chosen.kind,
        cause=chosen.cause,
        remedy=chosen.remedy,
        outcome=chosen.outcome,
        line=cleaned[best[1]],
        matched=True,
        errors=errors,
        category=chosen.category,
    )


def _match(candidate: Entry, lines: Sequence[str]) -> int | None:
    """The index of the first line that matches, or None if the entry does not match the log."""
    for index, line in enumerate(lines):
        if is_warning(line) or is_harmless(line) or not any(pattern.search(line) for pattern in candidate.any_of):
            continue
        if all(any(pattern.search(other) for other in lines) for pattern in candidate.also):
            return index
        return None
    return None


def _shown(lines: Iterable[str]) -> tuple[str, ...]:
    """Distinct lines; of too many the first and the last."""
    distinct = list(dict.fromkeys(line for line in lines if line))
    if len(distinct) <= _ERRORS:
        return tuple(distinct)
    half = _ERRORS // 2
    return tuple(distinct[:half] + distinct[-half:])


def _unknown(errors: tuple[str, ...]) -> Diagnosis:
    if errors:
        cause = "The lines of the log match no failure that this collection knows."
        remedy = "Read the errors listed here and the kept log, starting at its first error."
    else:
        cause = "There is no error line to tell the cause from."
        remedy = "Look at the kept log, and at the messages of containerd and of the kernel at that time."
    return Diagnosis(
        kind=UNKNOWN_KIND,
        cause=cause,
        remedy=remedy,
        outcome=UNKNOWN,
        line="",
        matched=False,
        errors=errors,
    )
