# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible adds over ssh to the window: the task as the controller sees it, less what the node was busy with."""

from __future__ import annotations

import json
import pathlib
import tempfile

from gpuops_lab import workload
from gpuops_lab.config import LabError

from gpuops_bench import many, role
from gpuops_bench.bench import STATE, WARM, Bench, say
from gpuops_bench.measure import Comparison, Sample

TASK = "The workloads run from where they were"
PEER = "ansible -m ping over ssh"
CALLBACKS = pathlib.Path(__file__).resolve().parents[1] / "callback_plugins"


def run(bench: Bench) -> list[Comparison]:
    found = []
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        role.write_inventory(bench, directory)
        for count, mib in ((1, bench.many), (many.COUNT, bench.many)):
            found += _of(bench, directory, count, mib)
    return found


def _of(bench: Bench, directory: pathlib.Path, count: int, mib: int) -> list[Comparison]:
    """``beside``: less the module's run in the node without Ansible; ``outside``: less the windows alone."""
    reference = bench.checkpoint_of(mib)
    beside: list[Sample] = []
    outside: list[Sample] = []
    pings: list[Sample] = []
    for _pair in range(bench.pairs):
        task, window = _through_ansible(bench, directory, reference, count)
        node = _without(bench, reference, count)
        pings.append(Sample(role.ansible(bench, directory, "ansible", "all", "-m", "ping").seconds))
        beside.append(Sample(max(0.0, task - node)))
        outside.append(Sample(task - window))
        say(
            f"  {count} workload(s): task {task:.2f} s, of it window {window:.2f} s; the module alone {node:.2f} s; "
            f"ping {pings[-1].seconds:.2f} s"
        )
    what = f"{count} x {mib} MiB"
    return [
        Comparison(f"Ansible's overhead in the window, {what}", PEER, beside, pings),
        Comparison(f"the window's task less the window, {what}", PEER, outside, pings),
    ]


def _through_ansible(bench: Bench, directory: pathlib.Path, reference: str, count: int) -> tuple[float, float]:
    """Seconds of the task as the controller sees it, and of the longest window in it."""
    bench.prepare_cache(WARM, 2 * count * bench.many)
    record, variables = directory / "seconds.jsonl", directory / "workloads.yml"
    record.unlink(missing_ok=True)
    workloads = many.parameters(reference, count)["workloads"]
    # The proof that a process stays alive is a wait of a second.
    variables.write_text(json.dumps({"restore_node_workloads": workloads, "restore_node_alive_seconds": 0}))
    setting = {
        "GPUOPS_SECONDS": str(record),
        "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
        "ANSIBLE_CALLBACKS_ENABLED": "gpuops_seconds",
    }
    role.ansible(bench, directory, "ansible-playbook", "-e", f"@{variables}", "gpuops.restore.restore", **setting)
    entries = [json.loads(line) for line in record.read_text().splitlines()]
    seconds = [entry["seconds"] for entry in entries if entry["task"].endswith(TASK) and entry["ended"] == "ok"]
    if len(seconds) != 1:
        raise LabError(f"The task {TASK!r} was seen {len(seconds)} times.")
    windows = []
    for name in many.names(count):
        receipt = json.loads(bench.node.inside(f"{STATE}/receipts/{name}.json").read_text())
        windows.append(float(receipt["seconds"]["window"]))
    _remove(bench, count)
    return seconds[0], max(windows)


def _without(bench: Bench, reference: str, count: int) -> float:
    """The same module in the node, started by hand."""
    bench.prepare_cache(WARM, 2 * count * bench.many)
    _answer, sample = bench.module("containerd_restore", many.parameters(reference, count))
    _remove(bench, count)
    return sample.seconds


def _remove(bench: Bench, count: int) -> None:
    for name in many.names(count):
        workload.await_count(bench.node, name, 1)
        bench.remove(name)
