# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A maintenance window over this host: programs as people run them leave, containerd is restarted, they come back.

The host cannot be rebooted, so the window's work is what it allows: everything that ran is gone, no process is on a
card, and containerd ends and begins anew.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from gpuops_gpu import gpu, host, programs
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.plays import Play
from gpuops_gpu.programs import Program
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

WINDOW = "gpu-test"
#: Of the programs: the file that grows while they live.
PROBE = "beat.log"
NAMES = ("loader-fork", "server", "generation", "two-cards", "ddp-shm")
#: The window's work: it tells that it has begun, and waits to be told that it is done.
TASKS = [
    {"ansible.builtin.copy": {"content": "", "dest": "{{ gpu_down }}", "mode": "0600"}, "name": "Down"},
    {"ansible.builtin.wait_for": {"path": "{{ gpu_up }}", "timeout": 60}, "name": "Up"},
]


def maintenance(bench: Bench, section: Section) -> None:
    """One window over all of them, and the same again, which changes nothing."""
    if not bench.suspends:
        raise StepError("Captures need a driver, real or stand-in.")
    wanted = [name for name in NAMES if not bench.settings.programs or name in bench.settings.programs]
    there = [one for one in programs.PROGRAMS if one.name in wanted and one.cards <= len(gpu.device_nodes())]
    references = {one.name: programs.make_workload(bench, one, "undisturbed", 0.0) for one in there}
    subjects = {one.name: programs.make_workload(bench, one, "captured", programs.PAUSE) for one in there}
    pattern = bench.pattern("pattern-captured", bench.settings.gib)
    try:
        expected = _running(bench, there, references, subjects, pattern)
        digests = bench.digests(pattern)
        names = [pattern.name, *(one.name for one in subjects.values())]
        told = _window(bench, section, names, pattern, {pattern.name: f"{host.WORK_IN_CONTAINER}/{pattern.probe}"})
        for name in names:
            section.check(f"{name}: its outage is in the report", bool(told.get(name)), told.get(name))
            section.phase(f"{name}: outage", float(told.get(name) or 0))
        section.check("the VRAM digest is the same", bench.digests(pattern) == digests)
        for one in there:
            programs.await_steps(bench, subjects[one.name], one.steps + 1, 90)
            found = programs.text_of(subjects[one.name])
            detail = programs.first_difference(found, expected[one.name])
            same = found == expected[one.name]
            section.check(f"{one.name}: all steps equal those of an undisturbed run, to the bit", same, detail)
    finally:
        for workload in (pattern, *subjects.values(), *references.values()):
            bench.take_away(workload)


def _running(
    bench: Bench,
    there: list[Program],
    references: dict[str, Workload],
    subjects: dict[str, Workload],
    pattern: Workload,
) -> dict[str, str]:
    """All run; what each program gives when nobody disturbs it."""
    for workload in (pattern, *references.values(), *subjects.values()):
        bench.start(workload)
    expected = {one.name: programs.undisturbed(bench, one, references[one.name]) for one in there}
    bench.await_ready(pattern)
    for one in there:
        programs.await_steps(bench, subjects[one.name], one.steps // 4, 120)
        if bench.world:
            bench.world.running(subjects[one.name].name, programs.STANDIN_BYTES)
    return expected


def _window(
    bench: Bench, section: Section, names: list[str], pattern: Workload, probes: dict[str, str]
) -> dict[str, Any]:
    """Twice the same; the outage of each, by the report."""
    down, up = bench.settings.base / "down", bench.settings.base / "up"
    worked = threading.Thread(target=_work, args=(bench, section, down, up))
    worked.start()
    with bench.watching(pattern):
        done = play(bench, names, probes, 240)
    up.touch()
    worked.join()
    section.phase("the window: the whole playbook", done.seconds)
    section.check("the window is through", done.ok and done.changed > 0, done.message)
    path = bench.settings.base / "report" / "report.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    section.figures["report of the window"] = document
    again = play(bench, names, probes, 90)
    section.check("the same window again changes nothing", again.ok and not again.changed, again.message)
    nodes = document.get("nodes") or {}
    nodes = list(nodes.values()) if isinstance(nodes, dict) else nodes
    return {one["name"]: one.get("outage") for node in nodes for one in node.get("workloads", [])}


def _work(bench: Bench, section: Section, down: Any, up: Any) -> None:
    """What the operator does meanwhile: nothing is left on the cards, and containerd begins anew."""
    try:
        with bench.runner.limited(200):
            bench.runner.await_true("the window's work begins", 180, lambda: down.exists() or up.exists())
            if up.exists():
                return
            bench.check_gpu_free(section, "in the window")
            bench.engine.restart()
    except StepError as error:
        section.check("containerd was restarted in the window", False, error)
    up.touch()


def play(
    bench: Bench,
    names: list[str],
    probes: dict[str, str],
    seconds: float,
    tasks: Sequence[Mapping[str, Any]] = TASKS,
    **variables: object,
) -> Play:
    """``probes``: the file that grows, of those that have another than the programs. ``variables``: more of them."""
    work = bench.settings.base / "work.yml"
    work.write_text(json.dumps(tasks))

    def probe(path: str) -> dict[str, Any]:
        return {"file": {"path": path, "seconds": 20}}

    selection = {
        "names": names,
        "defaults": {
            "gpu": "required",
            "stdout": f"{bench.settings.base}/work/{{name}}.log",
            "probe": probe(f"{host.WORK_IN_CONTAINER}/{PROBE}"),
        },
        "overrides": [{"match": {"names": [name]}, "set": {"probe": probe(path)}} for name, path in probes.items()],
    }
    usual: dict[str, object] = {
        "workloads": selection,
        "maintenance_window": WINDOW,
        "maintenance_become": False,
        "maintenance_tasks": str(work),
        "maintenance_report": str(bench.settings.base / "report"),
        "gpu_down": str(bench.settings.base / "down"),
        "gpu_up": str(bench.settings.base / "up"),
    }
    return bench.plays.window({**usual, **variables}, seconds)
