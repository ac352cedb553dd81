# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Part ``window`` of section ``node``: a maintenance window in which one is refused and one fails its probe.

The others leave and come back; the refused one runs on; the failed one is back when the same window is run again with
a probe that it can pass.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from gpuops_gpu import captures, host, maintenance, node_jobs, programs, together
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.report import Section

WINDOW = "gpu-test-node"
NEVER = "never-written"
#: The window's work: it notes that it was done.
TASKS = [
    {
        "name": "The work",
        "ansible.builtin.lineinfile": {"path": "{{ gpu_work }}", "line": "done", "create": True, "mode": "0600"},
    }
]


def window(bench: Bench, section: Section, cards: int, _keep: Callable[[], None]) -> None:
    """A container on each card, the last of which fails its probe, and one over all cards that is refused."""
    workloads = together.one_per_card(bench, "window", cards, bench.settings.small)
    refused = _refused(bench, cards)
    everyone = [*workloads, refused]
    try:
        before = together.begin(bench, workloads)
        with contextlib.ExitStack() as stack:
            _begin_refused(bench, refused, stack)
            _first(bench, section, workloads, refused, before)
            _second(bench, section, workloads, refused, before)
        if refused.parts == ():
            # What cannot be suspended has never been restored either.
            bench.engine.delete(refused.name)
    finally:
        together.take_away(bench, everyone)


def _refused(bench: Bench, cards: int) -> Workload:
    """NCCL's own transport; the stand-in knows none, so there a process that is traced."""
    if bench.settings.rehearsal:
        return bench.pattern("window-refused", bench.settings.small)
    return programs.make_workload(bench, node_jobs.job(cards, peer_access=True), "refused", programs.PAUSE)


def _begin_refused(bench: Bench, refused: Workload, stack: contextlib.ExitStack) -> None:
    bench.start(refused)
    if bench.settings.rehearsal:
        bench.await_ready(refused)
        stack.enter_context(captures.traced(bench.engine.pids(refused.name)[0]))
    else:
        programs.await_steps(bench, refused, 5, 120)


def _first(
    bench: Bench, section: Section, workloads: list[Workload], refused: Workload, before: dict[str, list[str]]
) -> None:
    failing = workloads[-1]
    alive = _beats(bench, refused)
    pids = sorted(bench.engine.pids(refused.name))
    play, told = _run(
        bench, section, workloads, refused, {failing.name: f"{host.WORK_IN_CONTAINER}/{NEVER}"}, "the window"
    )
    section.check("the run says that one has failed", not play.ok and failing.name in play.message, play.message)
    work = bench.settings.base / "node-work"
    section.check("the work was done", work.exists() and work.read_text() == "done\n")
    for one in workloads[:-1]:
        back = told.get(one.name) or {}
        section.check(f"{one.name}: it is back", back.get("phase") == "restored", back)
        section.phase(f"{one.name}: outage", float(back.get("outage") or 0))
    found = together.digests(bench, workloads[:-1])
    same = all(found[one.name] == before[one.name] for one in workloads[:-1])
    section.check("the VRAM digests of those that are back are the same", same)
    said = told.get(failing.name) or {}
    waits = said.get("phase") == "captured" and NEVER in str(said.get("message"))
    section.check(f"{failing.name}: it waits, and what its probe looked for is named", waits, said)
    section.check(f"{failing.name}: it was taken back", failing.name not in bench.engine.containers())
    section.check(f"{refused.name}: the same processes", sorted(bench.engine.pids(refused.name)) == pids, pids)
    bench.await_true(refused, "it goes on", 30, lambda: _beats(bench, refused) > alive)
    section.check(f"{refused.name}: the report says why it was refused", bool(_why(told, refused)), _why(told, refused))


def _second(
    bench: Bench, section: Section, workloads: list[Workload], refused: Workload, before: dict[str, list[str]]
) -> None:
    """The same window again, with a probe that can be passed."""
    play, told = _run(bench, section, workloads, refused, {}, "the window again")
    section.check("the window is through", play.ok and play.changed > 0, play.message)
    failing = workloads[-1]
    back = told.get(failing.name) or {}
    section.check(f"{failing.name}: it is back now", back.get("phase") == "restored", back)
    section.check("all VRAM digests are the same", together.digests(bench, workloads) == before)
    work = bench.settings.base / "node-work"
    section.check("the work was not done again", work.read_text() == "done\n")


def _run(
    bench: Bench,
    section: Section,
    workloads: list[Workload],
    refused: Workload,
    probes: dict[str, str],
    name: str,
) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The playbook's end, and what its report has of each workload. ``probes``: other files than those that grow."""
    grow = {one.name: f"{host.WORK_IN_CONTAINER}/{one.probe}" for one in (*workloads, refused)}
    report = bench.settings.base / "node-report"
    with together.watching(bench, workloads):
        play = maintenance.play(
            bench,
            list(grow),
            {**grow, **probes},
            together.LONG,
            TASKS,
            maintenance_window=WINDOW,
            maintenance_uncapturable="go_on",
            maintenance_report=str(report),
            gpu_work=str(bench.settings.base / "node-work"),
        )
    section.phase(f"{name}: the whole playbook", play.seconds)
    path = report / "report.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    section.figures[f"report of {name}"] = document
    return play, {one["name"]: one for node in document.get("nodes", []) for one in node.get("workloads", [])}


def _why(told: dict[str, dict[str, Any]], refused: Workload) -> str:
    return str((told.get(refused.name) or {}).get("message") or "")


def _beats(bench: Bench, workload: Workload) -> int:
    """What the refused one has counted."""
    return len((workload.directory / workload.probe).read_text().split())
