# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was checked and measured: report.json for programs, report.md for people."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Any

PASSED, FAILED, NOT_RUN, NOT_OVER = "passed", "failed", "not run", "not over"
REHEARSAL = "REHEARSAL WITHOUT A GPU: host memory stood in for VRAM; nothing here is a result about a GPU."


@dataclasses.dataclass
class Phase:
    """One measured span; ``moved`` bytes went through it, 0 where that means nothing."""

    name: str
    seconds: float
    moved: int = 0

    def result(self) -> dict[str, Any]:
        rate = {"gb_per_second": round(self.moved / 1e9 / self.seconds, 3)} if self.moved and self.seconds else {}
        return {"name": self.name, "seconds": round(self.seconds, 3), **rate}


@dataclasses.dataclass
class Section:
    """One part of the test, judged by itself."""

    name: str
    status: str = NOT_RUN
    reason: str = ""
    seconds: float = 0.0
    checks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    phases: list[Phase] = dataclasses.field(default_factory=list)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def check(self, name: str, ok: bool, detail: object = "") -> bool:
        """Note one; a failed one fails the section but does not end it."""
        self.checks.append({"name": name, "ok": bool(ok), "detail": str(detail)[:2000]})
        return ok

    def phase(self, name: str, seconds: float, moved: int = 0) -> None:
        self.phases.append(Phase(name, seconds, moved))

    def add(self, name: str, part: Section) -> None:
        """Take in what a part of this section has found; its names are told from those of other parts by ``name``."""
        self.checks += [{**check, "name": f"{name}: {check['name']}"} for check in part.checks]
        self.phases += [dataclasses.replace(phase, name=f"{name}: {phase.name}") for phase in part.phases]
        self.figures.update(part.figures)

    def nest(self, name: str, part: Section) -> None:
        """The same; its figures keep together under ``name``."""
        self.add(name, dataclasses.replace(part, figures={name: part.figures} if part.figures else {}))

    def so_far(self) -> Section:
        """A copy for a report in its middle: it has failed if something has, and else is not over."""
        found = dataclasses.replace(
            self, checks=list(self.checks), phases=list(self.phases), figures=dict(self.figures)
        )
        found.judge()
        found.status = NOT_OVER if found.status == PASSED else found.status
        return found

    def judge(self) -> None:
        failed = [check["name"] for check in self.checks if not check["ok"]]
        if self.reason or failed:
            self.status = FAILED
            self.reason = self.reason or f"failed: {'; '.join(failed)}"
        else:
            self.status = PASSED

    def result(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "phases": [phase.result() for phase in self.phases]}


class Report:
    """Written anew after every section, so that a run that is cut off leaves what it had."""

    def __init__(self, directory: pathlib.Path, rehearsal: bool, settings: dict[str, Any]) -> None:
        self._directory = directory
        self._rehearsal = rehearsal
        self._settings = settings
        self._begun = time.monotonic()
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.host: dict[str, Any] = {}
        self.node: dict[str, Any] = {}
        self.sections: list[Section] = []
        self.problem = ""

    @property
    def passed(self) -> bool:
        return not self.problem and bool(self.sections) and all(one.status == PASSED for one in self.sections)

    def write_so_far(self, section: Section) -> None:
        """In the middle of a section, which may be cut off."""
        kept = self.sections
        self.sections = [section.so_far() if one.name == section.name else one for one in kept]
        try:
            self.write()
        finally:
            self.sections = kept

    def write(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "report.json").write_text(json.dumps(self._result(), indent=1) + "\n")
        (self._directory / "report.md").write_text(self._markdown())

    def _result(self) -> dict[str, Any]:
        return {
            "format": "gpuops.restore/gpu-test/1",
            "started": self._started,
            "seconds": round(time.monotonic() - self._begun, 1),
            "passed": self.passed,
            "rehearsal": self._rehearsal,
            "problem": self.problem,
            "host": self.host,
            "cuda_process_info": self.node,
            "settings": self._settings,
            "sections": [section.result() for section in self.sections],
        }

    def _markdown(self) -> str:
        rows = ["# GPU test", ""]
        if self._rehearsal:
            rows += [f"**{REHEARSAL}**", ""]
        if self.problem:
            rows += [f"**{self.problem}**", ""]
        rows += ["| host | |", "|---|---|"]
        rows += [f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in self.host.items()]
        for section in self.sections:
            rows += ["", f"## {section.name}: {section.status} ({section.seconds:.0f} s)", ""]
            if section.reason:
                rows += [_cell(section.reason), ""]
            if section.checks:
                rows += ["| check | | detail |", "|---|---|---|"]
                rows += [
                    f"| {check['name']} | {'ok' if check['ok'] else 'FAILED'} | {_cell(check['detail'], 200)} |"
                    for check in section.checks
                ]
            if section.phases:
                rows += ["", "| phase | seconds | GB/s of VRAM |", "|---|---:|---:|"]
                for phase in section.phases:
                    found = phase.result()
                    rate = found.get("gb_per_second", "")
                    rows.append(f"| {phase.name} | {found['seconds']:.2f} | {rate and format(rate, '.2f')} |")
        return "\n".join(rows) + "\n"


def _cell(value: object, limit: int = 600) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text[:limit].replace("|", "\\|").split())
