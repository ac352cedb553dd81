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
from typing import Any

from gpuops_gpu import gpu, host, programs
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.plays import HOST, Play
from gpuops_gpu.programs import Program
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

WINDOW = "gpu-test"
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
    there = [one for one in programs.PROGRAMS if one.name in NAMES and one.cards <= len(gpu.device_nodes())]
    references = {one.name: programs.make_workload(bench, one, "undisturbed", 0.0) for one in there}
    subjects = {one.name: programs.make_workload(bench, one, "captured", programs.PAUSE) for one in there}
    try:
        _window(bench, section, there, references, subjects)
    finally:
        for workload in (*subjects.values(), *references.values()):
            bench.take_away(workload)


def _window(
    bench: Bench,
    section: Section,
    there: list[Program],
    references: dict[str, Workload],
    subjects: dict[str, Workload],
) -> None:
    for workload in (*references.values(), *subjects.values()):
        bench.start(workload)
    expected = {one.name: programs.undisturbed(bench, one, references[one.name]) for one in there}
    for one in there:
        programs.await_steps(bench, subjects[one.name], one.steps // 4, 120)
        if bench.world:
            bench.world.running(subjects[one.name].name, 1 << 20)
    down, up = bench.settings.base / "down", bench.settings.base / "up"
    worked = threading.Thread(target=_work, args=(bench, section, down, up))
    worked.start()
    play = _play(bench, subjects, 240)
    worked.join()
    section.phase("the window: the whole playbook", play.seconds)
    section.check("the window is through", play.ok and play.changed > 0, play.message)
    report = bench.settings.base / "report" / "report.json"
    document = json.loads(report.read_text()) if report.exists() else {}
    section.figures["report of the window"] = document
    told = {one["name"]: one for node in document.get("nodes", []) for one in node.get("workloads", [])}
    for one in there:
        name = subjects[one.name].name
        outage = (told.get(name) or {}).get("outage")
        section.check(f"{one.name}: its outage is in the report", bool(outage), outage)
        section.phase(f"{one.name}: outage", float(outage or 0))
        programs.await_steps(bench, subjects[one.name], one.steps + 1, 90)
        found = programs.text_of(subjects[one.name])
        same = found == expected[one.name]
        detail = programs.first_difference(found, expected[one.name])
        section.check(f"{one.name}: all steps equal those of an undisturbed run, to the bit", same, detail)
    again = _play(bench, subjects, 90)
    section.check("the same window again changes nothing", again.ok and not again.changed, again.message)


def _work(bench: Bench, section: Section, down: Any, up: Any) -> None:
    """What the operator does meanwhile: nothing is left on the cards, and containerd begins anew."""
    try:
        with bench.runner.limited(200):
            bench.runner.await_true("the window's work begins", 180, down.exists)
            bench.check_gpu_free(section, "in the window")
            bench.engine.restart()
    except StepError as error:
        section.check("containerd was restarted in the window", False, error)
    up.touch()


def _play(bench: Bench, subjects: dict[str, Workload], seconds: float) -> Play:
    tasks = bench.settings.base / "work.yml"
    tasks.write_text(json.dumps(TASKS))
    directory = f"{host.WORK_IN_CONTAINER}/{next(iter(subjects.values())).probe}"
    selection = {
        "names": [one.name for one in subjects.values()],
        "defaults": {
            "gpu": "required",
            "stdout": f"{bench.settings.base}/work/{{name}}.log",
            "probe": {"file": {"path": directory, "seconds": 20}},
        },
    }
    variables: dict[str, object] = {
        "workloads": selection,
        "maintenance_window": WINDOW,
        "maintenance_become": False,
        "maintenance_tasks": str(tasks),
        "maintenance_report": str(bench.settings.base / "report"),
        "gpu_down": str(bench.settings.base / "down"),
        "gpu_up": str(bench.settings.base / "up"),
        "maintenance_hosts": HOST,
    }
    return bench.plays.window(variables, seconds)
