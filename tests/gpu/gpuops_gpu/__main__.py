# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry point: sets up, runs the sections one by one, always writes the report and always cleans up."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable

from gpuops_gpu import (
    captures,
    failures,
    gpu,
    host,
    leaving,
    maintenance,
    node,
    parked,
    pod,
    programs,
    sections,
    settings,
    several,
    ways,
    window,
)
from gpuops_gpu.bench import Bench
from gpuops_gpu.engine import Engine, tree_digest
from gpuops_gpu.plays import Plays
from gpuops_gpu.rehearsal import World
from gpuops_gpu.report import REHEARSAL, Report, Section
from gpuops_gpu.runner import Log, Runner, StepError

PACKAGE = pathlib.Path(__file__).resolve().parent
WORLD = "GPUOPS_STANDIN_DIR"
# How long a section may take, and how much time has to be left for it to begin; seconds.
LIMITS = {
    "pattern": (240, 60),
    "capture": (180, 60),
    "park": (240, 60),
    "failures": (240, 60),
    "training": (240, 50),
    "four": (240, 60),
    "programs": (1500, 120),
    "several": (420, 60),
    "window": (560, 60),
    "ways": (300, 60),
    "leaving": (900, 120),
    "maintenance": (420, 120),
    "node": (3600, 120),
}
RUN: dict[str, Callable[[Bench, Section], None]] = {
    "pattern": sections.pattern,
    "capture": captures.capture,
    "park": parked.park,
    "failures": failures.failures,
    "training": sections.training,
    "four": sections.four,
    "programs": programs.programs,
    "several": several.several,
    "window": window.window,
    "ways": ways.ways,
    "leaving": leaving.leaving,
    "maintenance": maintenance.maintenance,
    "node": node.node,
}


def environment(params: settings.Settings) -> dict[str, str]:
    """What all commands get: the bundle's programs and Python packages first."""
    base = params.base
    path = os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {
        **os.environ,
        "PATH": f"{base}/bin:{path}",
        "PYTHONPATH": f"{base}/site",
        "PYTHONPYCACHEPREFIX": f"{base}/pycache",
    }


def make_bench(params: settings.Settings, runner: Runner) -> Bench:
    """Nothing of it is started."""
    engine = Engine(runner, params.base)
    plays = Plays(runner, params.base, engine.address, params.base / "state")
    return Bench(params, runner, engine, plays)


def set_up(bench: Bench, report: Report) -> None:
    """containerd runs, the image is there, and the report knows the host; raises StepError."""
    base = bench.settings.base
    bench.python = host.describe_python(os.environ.get("GPUOPS_GPU_PYTHON") or "python3")
    collection = base / "collections/ansible_collections/gpuops/restore"
    report.host = {
        **host.facts(),
        "workload_python": f"{bench.python['executable']} {bench.python['version']}",
        "torch": bench.python.get("torch", "absent"),
        "collection": json.loads((collection / "MANIFEST.json").read_text())["collection_info"]["version"],
        "collection_sha256": tree_digest(collection / "plugins"),
        "debian_packages": json.loads((base / "native.json").read_text()),
    }
    bench.mounts = host.mounts(host.python_folders(bench.python))
    if not bench.settings.rehearsal:
        add_driver(bench, report)
    bench.mounts.append(host.Mount(os.path.realpath(base / "site"), host.SITE_IN_CONTAINER))
    bench.mounts.append(host.Mount(str(PACKAGE.parent / "workloads"), host.PROGRAMS_IN_CONTAINER))
    report.host["mounts"] = [f"{mount.source} at {mount.target}" for mount in bench.mounts]

    bench.plays.prepare()
    bench.engine.start()
    report.host["network"] = bench.engine.network
    report.host["snapshotter"] = bench.engine.snapshotter
    for program in ("containerd", "runc", "criu"):
        report.host[program] = bench.runner.run([program, "--version"], 20).output.replace("\n", " ").strip()
    links = {f"{host.DRIVER_IN_CONTAINER}/{name}": file for name, file in bench.driver.links.items()}
    places = (host.WORK_IN_CONTAINER, host.DRIVER_IN_CONTAINER)
    bench.engine.make_image([*bench.mounts, *(host.Mount("", place) for place in places)], links)
    if bench.settings.standin:
        bench.world = World(pathlib.Path(os.environ[WORLD]))
        bench.world.make()
    if bench.suspends:
        report.host.update(gpu.facts())
        bench.base_used, bench.base_processes = gpu.used(), gpu.processes()
        report.host["vram_used_at_start_mib"] = bench.base_used // gpu.MIB
        report.node, _ = bench.plays.module("cuda_process_info", {}, 60)


def add_driver(bench: Bench, report: Report) -> None:
    """The driver's folder and device nodes for the containers; raises StepError when there are none."""
    folder = host.driver_folder()
    bench.devices = host.devices()
    if not folder or not bench.devices:
        raise StepError(f"No NVIDIA driver: libcuda.so.1 in {folder or 'no folder'}, device nodes: {bench.devices}.")
    bench.driver = pod.driver(folder, bench.devices)
    extra = host.driver_mount(folder, bench.mounts)
    bench.library_path = host.library_path(folder, extra)
    bench.mounts += [extra] if extra else []
    report.host["driver_folder"] = folder
    report.host["device_nodes"] = bench.devices


def run_section(bench: Bench, section: Section) -> None:
    """Whatever happens within is noted in the section and nowhere else."""
    limit, needed = LIMITS[section.name]
    log = bench.runner.log
    if bench.runner.left() < needed:
        section.reason = f"Only {bench.runner.left():.0f} s were left, and it needs {needed}."
        log.write(f"{section.name}: not run. {section.reason}", show=True)
        return
    log.write(f"==> {section.name}", show=True)
    begun = time.monotonic()
    try:
        with bench.runner.limited(limit):
            RUN[section.name](bench, section)
    except StepError as error:
        section.reason = str(error)
    except Exception:  # noqa: BLE001 a bug of the test must not hide the other sections
        section.reason = f"The test itself broke: {traceback.format_exc()[-1500:]}"
    section.seconds = round(time.monotonic() - begun, 1)
    section.judge()
    log.write(f"{section.name}: {section.status} after {section.seconds} s. {section.reason}", show=True)


def tear_down(bench: Bench) -> None:
    """Raises nothing: what it could not do stands in the log."""
    bench.evidence.append("at the end", bench.engine.log)
    try:
        with bench.runner.limited(60, beyond=True):
            bench.engine.stop()
            if not bench.settings.keep:
                bench.engine.remove()
    except (OSError, StepError) as error:
        bench.runner.log.write(f"clean-up at the end: {error}", show=True)


def main() -> int:
    params = settings.read()
    log = Log(params.out / "log.txt")
    runner = Runner(log, params.seconds, environment(params))
    shown = {key: str(value) for key, value in dataclasses.asdict(params).items()}
    report = Report(params.out, params.rehearsal, shown)
    if params.rehearsal:
        log.write(REHEARSAL, show=True)
    bench = make_bench(params, runner)
    try:
        bench.evidence.target.unlink(missing_ok=True)
        report.sections = [Section(name) for name in params.sections]
        report.write()
        bench.write_report = report.write_so_far
        set_up(bench, report)
        for section in report.sections:
            run_section(bench, section)
            report.write()
    except StepError as error:
        report.problem = str(error)
    except Exception:  # noqa: BLE001 the report has to be written whatever happens
        report.problem = f"The test itself broke: {traceback.format_exc()[-2500:]}"
    finally:
        if report.problem:
            log.write(report.problem, show=True)
        report.write()
        tear_down(bench)
    verdict = "PASSED" if report.passed else "FAILED"
    log.write(f"{verdict}: {', '.join(f'{one.name} {one.status}' for one in report.sections)}", show=True)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
