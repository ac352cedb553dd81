# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the ledger says, as the table of docs/reliability.md."""

from __future__ import annotations

import collections
from collections.abc import Collection, Sequence

from gpuops_faults import ledger
from gpuops_faults.ledger import Entry
from gpuops_faults.steps import STEPS
from gpuops_faults.strike import FAULTS

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def table(entries: Collection[Entry], generations: Sequence[str]) -> list[str]:
    """Lines of Markdown: what was struck, how those runs ended, and below it what was wrong after one more run."""
    final = list(ledger.latest(entries).values())
    found: dict[tuple[str, str], list[Entry]] = collections.defaultdict(list)
    for entry in final:
        found[entry.step, entry.fault].append(entry)
    columns = "".join(f" {generation} |" for generation in generations)
    lines = [
        f"| step | fault |{columns} how the struck runs ended | wrong after one more run |",
        f"|---|---|{'---|' * len(generations)}---|---|",
    ]
    for (step, fault), group in sorted(found.items(), key=lambda row: _place(*row[0])):
        counts = collections.Counter(entry.containerd for entry in group)
        cells = "".join(f" {counts[generation] or '-'} |" for generation in generations)
        ends = collections.Counter(entry.first for entry in group)
        text = ", ".join(f"{count} {end}" for end, count in ends.most_common())
        wrong = sum(bool(entry.wrong) for entry in group)
        lines.append(f"| {step} | `{fault}` |{cells} {text} | {wrong} |")
    counts = collections.Counter(entry.containerd for entry in final)
    cells = "".join(f" {counts[generation] or '-'} |" for generation in generations)
    lines.append(f"| all | |{cells} | {sum(bool(entry.wrong) for entry in final)} |")
    return [*lines, *_wrong(entries)]


def _place(step: str, fault: str) -> tuple[int, int]:
    return list(STEPS).index(step), FAULTS.index(fault)


def _wrong(entries: Collection[Entry]) -> list[str]:
    """Whatever was wrong once, those included that were right when they were struck again."""
    final = ledger.latest(entries)
    lines = []
    for entry in entries:
        if entry.wrong:
            later = "" if final[entry.key].wrong else " Struck once more, it was right."
            call = f"`{entry.fault}` at call {entry.number} ({entry.call})"
            lines.append(f"- containerd {entry.containerd}, {entry.step}, {call}: {entry.wrong}.{later}")
    return ["", "Wrong after one more run:", "", *lines] if lines else []


def replaced(text: str, lines: Sequence[str]) -> str:
    """The document with these lines between its marks. Raises ValueError when it has no marks."""
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks {BEGIN} and {END}")
    return "\n".join([f"{before}{BEGIN}", "", *lines, "", f"{END}{after}"])
