# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A maintenance window that parks a workload: while the work is done the card is free, and then it goes on in place."""

from __future__ import annotations

import json
import pathlib
import time
from typing import Any

from gpuops_gpu import parked_abreast
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.report import Section
from gpuops_gpu.runner import Done, StepError


def park(bench: Bench, section: Section) -> None:
    """Its VRAM leaves the card for host memory and comes back with the same digest; a second run changes nothing."""
    if not bench.suspends:
        raise StepError("Parking needs a driver, real or stand-in.")
    inner = Section("side by side")
    try:
        parked_abreast.side_by_side(bench, inner)
    finally:
        section.add(inner.name, inner)
    workload = bench.pattern("park", bench.settings.gib)
    try:
        bench.start(workload)
        bench.await_ready(workload)
        before, pids = bench.digests(workload), sorted(bench.engine.pids(workload.name))
        variables = _window(bench, workload)
        report = pathlib.Path(variables["maintenance_report"]) / "report.json"
        done = _through_the_work(bench, section, workload, variables)
        play = bench.plays.result(done)
        section.phase("window: the whole playbook", play.seconds, workload.bytes)
        section.check("the window is done", play.ok, play.message)
        (one,) = json.loads(report.read_text())["nodes"][0]["workloads"]
        section.figures["in the report"] = one
        for name in ("park", "resume"):
            section.phase(f"window: {name}", float(one["seconds"][name]), workload.bytes)
        section.check("the report says that it is back", one["phase"] == "resumed" and bool(one["back_at"]), one)
        section.check("the VRAM digest is the same", bench.digests(workload) == before)
        counted = bench.count(workload)
        bench.await_true(workload, "it counts on", 20, lambda: bench.count(workload) > counted)
        section.check("in the same processes", sorted(bench.engine.pids(workload.name)) == pids, pids)
        again = bench.plays.playbook("maintenance", bench.entry(workload), 90, **variables)
        section.check("a second run changes nothing", again.ok and again.changed == 0, again.message)
    finally:
        bench.take_away(workload)


def _window(bench: Bench, workload: Workload) -> dict[str, Any]:
    """The window's variables; its work tells that it has begun, and waits until it may end."""
    work = workload.directory.with_suffix(".tasks.yml")
    script = f"touch {_sign(workload, 'begun')}; until [ -e {_sign(workload, 'over')} ]; do sleep 0.1; done"
    tasks = [{"name": "The work", "ansible.builtin.command": {"argv": ["sh", "-c", script]}, "changed_when": False}]
    work.write_text(json.dumps(tasks))
    return {
        "maintenance_window": "gpu-test",
        "maintenance_method": "park",
        "maintenance_become": False,
        "maintenance_tasks": str(work),
        "maintenance_report": str(workload.directory.with_suffix(".report")),
        "workloads": {"gpu": True, "names": [workload.name], "defaults": {"probe": bench.entry(workload)["probe"]}},
    }


def _sign(workload: Workload, name: str) -> pathlib.Path:
    return workload.directory.with_suffix(f".{name}")


def _through_the_work(bench: Bench, section: Section, workload: Workload, variables: dict[str, Any]) -> Done:
    """The window in the background; in the middle of its work the card is looked at."""
    begun = time.monotonic()
    process = bench.plays.start("maintenance", bench.entry(workload), **variables)
    try:
        sign = _sign(workload, "begun")
        bench.runner.await_true("the work begins", 90, lambda: sign.exists() or process.poll() is not None)
        if sign.exists():
            bench.check_gpu_free(section, "while it is parked")
            counted = bench.count(workload)
            time.sleep(1)
            section.check("it stands still while it is parked", bench.count(workload) == counted, counted)
            _sign(workload, "over").touch()
        output, errors = process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            bench.runner.end(process)
            process.communicate()
    bench.runner.log.write(output + errors)
    return Done(process.returncode, output, errors, round(time.monotonic() - begun, 3))
