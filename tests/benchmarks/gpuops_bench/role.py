# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore through the role over ssh, as an operator does it, and what Ansible has to do with the time."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile

from gpuops_lab import inventory, workload

from gpuops_bench import ours
from gpuops_bench.bench import ROOT, WARM, Bench, Done, say
from gpuops_bench.measure import Comparison, Sample, pairs

PEER = "ctr containers restore --rw --live"


def run(bench: Bench) -> list[Comparison]:
    found = []
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        write_inventory(bench, directory)
        for mib in bench.sizes:
            found += _of_size(bench, directory, mib)
    return found


def _of_size(bench: Bench, directory: pathlib.Path, mib: int) -> list[Comparison]:
    reference = bench.checkpoint_of(mib)
    say(f"through the role, {mib} MiB {WARM}")
    variables = directory / "workloads.yml"
    entry = {"name": "restored-r", "checkpoint": reference, "gpu": "none"}
    # The proof that the process stays alive is a wait of a second that ctr does not make.
    variables.write_text(json.dumps({"restore_node_workloads": [entry], "restore_node_alive_seconds": 0}))
    alone: list[Sample] = []

    def play(*tags: str) -> Sample:
        command = ["ansible-playbook", "-e", f"@{variables}", *tags, "gpuops.restore.restore"]
        with bench.memory_of("restored-r", mib):
            bench.prepare_cache(WARM, mib)
            done = ansible(bench, directory, *command)
        receipt = json.loads(bench.node.inside("/var/lib/gpuops-restore/receipts/restored-r.json").read_text())
        seconds = {name: float(value) for name, value in (receipt.get("seconds") or {}).items() if value is not None}
        workload.await_count(bench.node, "restored-r", 1)
        bench.remove("restored-r")
        return Sample(done.seconds, phases={"window": seconds["window"]} if "window" in seconds else {})

    def by_us() -> Sample:
        sample = play()
        with bench.memory_of("restored-o", mib):
            bench.prepare_cache(WARM, mib)
            alone.append(ours.ROUTES[bench.route](bench, "restored-o", reference))
        bench.remove("restored-o")
        return sample

    def by_ctr() -> Sample:
        with bench.memory_of("restored-c", mib):
            bench.prepare_cache(WARM, mib)
            sample = bench.ctr("containers", "restore", "--rw", "--live", "restored-c", reference)
        bench.remove("restored-c")
        return sample

    whole = pairs(f"role over ssh {mib} MiB {WARM}", PEER, bench.pairs, by_us, by_ctr, say)
    # In a window after plan and stage, which have looked for problems already.
    name = f"role over ssh {mib} MiB {WARM}, --tags restore"
    short = pairs(name, PEER, bench.pairs, lambda: play("--tags", "restore"), by_ctr, say)
    pings = [Sample(ansible(bench, directory, "ansible", "all", "-m", "ping").seconds) for _each in alone]
    share = [Sample(max(0.0, a.seconds - b.seconds)) for a, b in zip(whole.ours, alone)]
    return [whole, short, Comparison(f"Ansible's share of it, {mib} MiB", "ansible -m ping over ssh", share, pings)]


def write_inventory(bench: Bench, directory: pathlib.Path) -> None:
    hosts = {bench.node.name: inventory.host_variables(bench.node)}
    (directory / "inventory.yml").write_text(inventory.inventory_text(hosts))


def ansible(bench: Bench, directory: pathlib.Path, program: str, *arguments: str, **setting: str) -> Done:
    """A command of Ansible with the inventory of ``directory``; ``setting``: environment beside the example's."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "examples" / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    environment.update(setting)
    command = [program, "-i", str(directory / "inventory.yml"), *arguments]
    return bench.timed(command, inside=False, env=environment, cwd=ROOT)
