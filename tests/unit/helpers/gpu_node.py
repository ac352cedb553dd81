# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node with GPUs: the test doubles of containerd and of the NVIDIA driver's libraries (STAND-INS) put together.

The containers that the one starts are real processes that the other knows. What these tests show holds for our own
code; that the driver does its part is shown on a real card (tests/gpu).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import stage as stage_steps
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.access import GpuAccess
from ansible_collections.gpuops.restore.plugins.module_utils._host import processes as host_processes
from ansible_collections.gpuops.restore.plugins.module_utils._restore import batch as restore_batch
from ansible_collections.gpuops.restore.plugins.module_utils._restore.params import Job, Settings
from ansible_collections.gpuops.restore.plugins.module_utils._restore.result import Result
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import add_checkpoint
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Task


@dataclass(frozen=True)
class Cuda:
    """A process of a container, as it is right after its start; ``state`` None: it has no CUDA."""

    state: int | None = standin.CHECKPOINTED
    memory: Mapping[str, int] = field(default_factory=dict)
    more: Mapping[str, str | int] = field(default_factory=dict)


class GpuNode:
    """``planned``: by container id, the processes of each start in turn; the last entry holds for all later ones."""

    def __init__(self, fake: FakeContainerd, client: Client, node: Node, world: standin.World, root: Path) -> None:
        self.fake, self.client, self.node, self.world = fake, client, node, world
        self.root = node.root
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.marks = root / "run" / "cuda"
        self.proc.mkdir(parents=True)
        self.cgroup.mkdir()
        self.write_available(1 << 40)
        self.planned: dict[str, list[list[Cuda]]] = {}
        self.started: dict[str, list[list[int]]] = {}
        fake.state.spawn, fake.state.reap = self._spawn, self._reap
        self.watch()

    def watch(self) -> None:
        """Let containerd notice processes that end by themselves. Again after ``fake.heal()``."""
        for name in ("Tasks/Get", "Tasks/Wait"):
            self.fake.on(name, lambda _context: self._notice())

    def write_available(self, size: int) -> None:
        """What the node has free, in bytes."""
        (self.proc / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {size // 1024} kB\n", encoding="ascii")

    def add(
        self,
        name: str,
        *starts: list[Cuda],
        held: Sequence[Mapping[str, int]] | None = None,
        visible: Sequence[str] = (),
        stage: bool = True,
    ) -> str:
        """A checkpoint of a container; ``held``: what its capture recorded of each process, ``visible``: the GPUs.

        The image's name.
        """
        notes = {
            "io.containerd.checkpoint.runtime": "io.containerd.runc.v2",
            "io.containerd.checkpoint.snapshotter": "overlayfs",
            "org.opencontainers.image.ref.name": self.node.base.name,
        }
        if held is not None:
            processes = [{"bytes": sum(gpus.values()), "gpus": dict(gpus)} for gpus in held]
            gpu = {"processes": processes, "visible": list(visible)} if held else None
            notes[labels.FACTS] = json.dumps({"version": 1, "gpu": gpu})
        image = f"example.test/{name}-checkpoint:1"
        add_checkpoint(self.fake.state, name=image, base=self.node.base, annotations=notes)
        if stage:
            stage_steps.present(self.client, image, self.root, None, False)
        self.planned[name] = list(starts)
        return image

    def access(self, cuda_timeout: float = 30.0) -> GpuAccess:
        """How its GPUs are reached."""
        return GpuAccess(
            cuda_timeout=cuda_timeout, proc=str(self.proc), cgroup_root=str(self.cgroup), marks_root=str(self.marks)
        )

    def job(self, name: str, settings: Mapping[str, Any] | None = None, **workload: Any) -> Job:
        """A workload from the checkpoint that :meth:`add` has made."""
        options: dict[str, Any] = {"alive_seconds": 0.05, "gpu_retries": 0, "access": self.access(), **(settings or {})}
        given = {"name": name, "checkpoint": f"example.test/{name}-checkpoint:1", **workload}
        return Job.from_options(given, Settings(staging_dir=self.root, **options))

    def run(self, *jobs: Job, parallel: int = 0) -> list[Result]:
        """Restore them; what check mode says of it before is compared, and it must not have touched anything."""
        before, log = self.everything(), len(self.world.order())
        predicted = restore_batch.restore_all(self.client.another, jobs, parallel, True)
        assert (self.everything(), len(self.world.order())) == (before, log), "check mode has touched something"
        done = restore_batch.restore_all(self.client.another, jobs, parallel, False)
        for planned, result in zip(predicted, done):
            if planned.failure:
                assert result.failure, "check mode has predicted a failure"
                assert (planned.failure.code, planned.failure.msg) == (result.failure.code, result.failure.msg)
            elif not result.failure:
                assert planned.changed == result.changed
        return done

    def one(self, job: Job) -> Result:
        """The same of a single one."""
        (found,) = self.run(job)
        return found

    def begin(self, name: str) -> None:
        """Have it run, for tests of what comes afterwards."""
        (result,) = restore_batch.restore_all(self.client.another, [self.job(name)], 1, False)
        assert result.failure is None

    def everything(self) -> Any:
        """What a failed restore has to leave as it was: containerd's objects, files, processes, states, VRAM, marks."""
        listing = self.fake.state.listing()
        files = [
            (place, sorted(names))
            for place, _directories, names in sorted(os.walk(self.root))
            if "/debug" not in place[len(self.root) :]
        ]
        states = {path.name: self.world.state(int(path.name)) for path in (self.world.root / "pids").iterdir()}
        return listing, files, states, sorted(self.marks.iterdir()) if self.marks.exists() else []

    def states(self, name: str) -> list[int]:
        """The CUDA states of the processes of the last start."""
        return [self.world.state(pid) for pid in self.started[name][-1]]

    def put_task(self, name: str) -> None:
        """Start the container's task by hand, as a run would have that was killed right afterwards."""
        self.fake.state.tasks[name] = Task(None, self._spawn(name), 2)

    def alive(self) -> list[int]:
        """Those of all processes that were ever started that still live."""
        pids = [pid for starts in self.started.values() for start in starts for pid in start]
        return [pid for pid in pids if host_processes.start_time(pid) is not None]

    def _spawn(self, name: str) -> int:
        starts = self.started.setdefault(name, [])
        plans = self.planned[name]
        pids = []
        for plan in plans[min(len(starts), len(plans) - 1)]:
            if plan.state is None:
                pids.append(self.world.spawn())
            else:
                pids.append(self.world.add_process(plan.state, plan.memory, **plan.more))
        starts.append(pids)
        group = self.cgroup / name
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids), encoding="ascii")
        for pid in pids:
            directory = self.proc / str(pid)
            directory.mkdir()
            (directory / "stat").symlink_to(f"/proc/{pid}/stat")
            (directory / "status").symlink_to(f"/proc/{pid}/status")
            (directory / "cgroup").write_text(f"0::/{name}\n", encoding="ascii")
        return pids[0]

    def _reap(self, name: str) -> None:
        for pid in self.started.get(name, [[]])[-1]:
            self.world.kill(pid)
            shutil.rmtree(self.world.root / "pids" / str(pid), ignore_errors=True)
            shutil.rmtree(self.proc / str(pid), ignore_errors=True)

    def _notice(self) -> None:
        for name, task in list(self.fake.state.tasks.items()):
            if task.status == 2 and host_processes.start_time(task.pid) is None:
                self.fake.state.end(name, 137)
