# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Problems and failures as texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def itemized(items: Iterable[Any], sentence: str, notes: Iterable[str] = ()) -> str:
    """The sentence, with their number in place of ``{count}``, below it a line for each, and the notes."""
    lines = [f"- {item}" for item in items]
    return "".join(f"{line}\n" for line in [sentence.replace("{count}", str(len(lines)), 1), *lines, *notes])


def of_problems(problems: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each problem, with all the workloads that have it; in the order of their messages."""
    workloads: dict[str, dict[str, None]] = {}
    for problem in problems:
        workloads.setdefault(str(problem["message"]), {})[str(problem["workload"])] = None
    return [f"{', '.join(workloads[message])}: {message}" for message in sorted(workloads, key=str.lower)]


def of_failures(failures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each workload that failed, with where its evidence is and what it left behind."""
    return [
        f"{name}: {failure['outcome']}: {failure['msg']}"
        + (f" Evidence: {failure['evidence']}" if failure.get("evidence") else "")
        + (f" Left behind: {failure['left_behind']}" if failure.get("left_behind") else "")
        for name, failure in failures.items()
    ]
