# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the error lines of a failed checkpoint or restore to one cause and one remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .._core.errors import UNKNOWN
from .._criu.log import Origin, clean, is_consequence, is_harmless, is_progress, is_warning, origin
from . import parts
from .entry import SYMPTOM, WHERE, Entry
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

    #: Stable; ``unknown-PART`` if no entry is sure, ``unknown`` if nothing tells the part either.
    kind: str
    cause: str
    remedy: str
    #: ``retryable``, ``terminal`` or ``unknown``.
    outcome: str
    #: The line that tells it, cleaned: that of the entry, else the first that says that something failed; or empty.
    line: str
    matched: bool
    #: The cleaned lines of the log in order, at most 40, without progress messages.
    errors: tuple[str, ...]
    #: Groups kinds.
    category: str = UNKNOWN_KIND


@dataclass(frozen=True)
class _Line:
    """One line, cleaned."""

    text: str
    origin: Origin
    #: It says that something failed, as far as its form tells.
    counts: bool


def diagnose(lines: Sequence[str], where: str | None = None, versions: Mapping[str, str] | None = None) -> Diagnosis:
    """The best entry of the table over all ``lines`` (of a CRIU log, or messages of containerd, runc, CUDA).

    Best is the lowest rank, then the earliest line, then the order of the table. Where none is sure, the part that
    failed is named. ``where`` names the origin: ``dump``, ``restore``, ``cuda`` or ``containerd``; anything else raises
    ``ValueError``. ``versions``: of this node, by the names in known_limits.
    """
    if where is not None and where not in WHERE:
        raise ValueError(f"where has to be one of {', '.join(WHERE)}, not {where!r}.")
    # A line that comes again tells nothing new.
    split = list(dict.fromkeys(part for line in lines for part in line.splitlines()))
    errors = _shown(clean(line) for line in split if not is_progress(line))
    read = [_read(line) for line in split]
    read = [line for line in read if line.text]
    best: tuple[int, int] | None = None
    chosen: Entry | None = None
    for candidate in TABLE:
        if where is not None and candidate.where and where not in candidate.where:
            continue
        at = _match(candidate, read)
        if at is not None and (best is None or (candidate.rank, at) < best):
            best, chosen = (candidate.rank, at), candidate
    if best is None or chosen is None or _is_consequence_of_another(best, read):
        return _unsure(read, errors, where, versions or {})
    return Diagnosis(
        kind=chosen.kind,
        cause=chosen.cause,
        remedy=chosen.remedy,
        outcome=chosen.outcome,
        line=read[best[1]].text,
        matched=True,
        errors=errors,
        category=chosen.category,
    )


def matching(lines: Sequence[str], where: str | None = None) -> list[tuple[int, int, str]]:
    """Rank, line and kind of every entry that matches, the one that wins first: what a table has to be sure of."""
    read = [line for line in (_read(part) for line in lines for part in line.splitlines()) if line.text]
    found = []
    for order, candidate in enumerate(TABLE):
        if where is None or not candidate.where or where in candidate.where:
            at = _match(candidate, read)
            if at is not None:
                found.append((candidate.rank, at, order, candidate.kind))
    return [(rank, at, kind) for rank, at, _order, kind in sorted(found)]


def _read(raw: str) -> _Line:
    text = clean(raw)
    return _Line(text, origin(text), not (is_progress(raw) or is_warning(text) or is_harmless(text)))


def _match(candidate: Entry, lines: Sequence[_Line]) -> int | None:
    """The index of the first line that matches, or None if the entry does not match the log."""
    for index, line in enumerate(lines):
        if not line.counts or not _fits(candidate, line.origin):
            continue
        if all(any(pattern.search(other.text) for other in lines) for pattern in candidate.also):
            return index
        return None
    return None


def _fits(candidate: Entry, found: Origin) -> bool:
    if candidate.sources and found.source and found.source not in candidate.sources:
        return False
    if not any(pattern.search(found.text) for pattern in candidate.any_of):
        return False
    return not any(pattern.search(found.text) for pattern in candidate.unless)


def _is_consequence_of_another(best: tuple[int, int], lines: Sequence[_Line]) -> bool:
    """Whether an error of CRIU's that no entry knows comes before a line that mostly is a consequence."""
    rank, at = best
    return rank >= SYMPTOM and any(
        line.counts and line.origin.source and not is_consequence(line.text) and parts.part_of(line.origin)
        for line in lines[:at]
    )


def _shown(lines: Iterable[str]) -> tuple[str, ...]:
    """Distinct lines; of too many the first and the last."""
    distinct = list(dict.fromkeys(line for line in lines if line))
    if len(distinct) <= _ERRORS:
        return tuple(distinct)
    half = _ERRORS // 2
    return tuple(distinct[:half] + distinct[-half:])


def _unsure(
    lines: Sequence[_Line], errors: tuple[str, ...], where: str | None, versions: Mapping[str, str]
) -> Diagnosis:
    telling = [line for line in lines if line.counts]
    # Programs that CRIU runs write into its log too, and mostly what does no harm.
    telling.sort(
        key=lambda line: (is_consequence(line.text), not line.origin.source, not parts.says_failure(line.text))
    )
    headline = telling[0].text if telling else ""
    part = _part([line for line in telling if not is_consequence(line.text)])
    if part is not None:
        kind, cause, remedy = part.kind, parts.cause(part), parts.remedy(part, where, versions)
    elif errors:
        kind, cause = UNKNOWN_KIND, "The lines of the log match no failure that this collection knows."
        remedy = "Read the errors listed here and the kept log, starting at its first error."
    else:
        kind, cause = UNKNOWN_KIND, "There is no error line to tell the cause from."
        remedy = "Look at the kept log, and at the messages of containerd and of the kernel at that time."
    return Diagnosis(kind, cause, remedy, UNKNOWN, headline, False, errors)


def _part(telling: Sequence[_Line]) -> parts.Part | None:
    """Of the first line that tells it by itself, else of the first that lies in a file of one part."""
    found = [(parts.part_of(line.origin), line.origin) for line in telling]
    specific = [part for part, where in found if part is not None and parts.is_specific(where)]
    return next(iter(specific or [part for part, _where in found if part is not None]), None)
