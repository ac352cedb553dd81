# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node that is measured on: checkpoints of a size, commands with their time and memory, page cache cold or warm."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import in_node
from gpuops_lab import image, workload
from gpuops_lab.config import LabError, Node

from gpuops_bench.measure import Sample

ROOT = pathlib.Path(__file__).resolve().parents[3]
STATE = "/var/lib/gpuops-restore"
CONTENT = "/var/lib/containerd/io.containerd.content.v1.content/blobs"
COLD, WARM = "cold", "warm"
MIB = 1 << 20
#: Bytes of memory that a restore takes beside the workload's.
SPARE = 512 * MIB
#: Where containerd keeps a task from the moment that it is made.
TASKS = f"/run/containerd/io.containerd.runtime.v2.task/{workload.NAMESPACE}"
#: Touches so many bytes of huge pages (free page reporting goes by them), and holds them until a path is there, or the
#: benchmark is gone.
TOUCH = """
import mmap, os, sys, time
size, parent = int(sys.argv[1]), os.getppid()
area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_HUGEPAGE)
for offset in range(0, size, 1 << 21):
    area[offset] = 1
print("there", flush=True)
while len(sys.argv) > 2 and os.getppid() == parent and not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
"""
#: Milliseconds between two numbers of a counter whose gaps are measured.
TICK_MS = 2


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that has ended well."""

    output: str
    seconds: float
    peak: int


@dataclasses.dataclass(frozen=True)
class Bench:
    """``sizes``: MiB that the workload holds. ``route``: the name of the way in ``ours.ROUTES``."""

    node: Node
    sizes: tuple[int, ...]
    pairs: int
    caches: tuple[str, ...]
    route: str
    #: MiB that each of many workloads holds.
    many: int = 256

    def timed(
        self, command: Sequence[str], given: str = "", inside: bool = True, status: int = 0, **options: Any
    ) -> Done:
        """Run a command in the node, or beside it, with its peak memory; raises LabError unless it ends so."""
        whole = [str(self.node.directory / "enter"), *command] if inside else list(command)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as source:
            source.write(given.encode())
            source.seek(0)
            begun = time.monotonic()
            process = subprocess.Popen(whole, stdin=source, stdout=out, stderr=errors, **options)
            # Counts the process and the children that it has waited for.
            _pid, ended, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begun
            process.returncode = os.waitstatus_to_exitcode(ended)
            out.seek(0)
            errors.seek(0)
            text = out.read().decode(errors="replace")
            if process.returncode != status:
                reason = (errors.read().decode(errors="replace") or text)[-2000:]
                raise LabError(f"{' '.join(command[:6])} ended with status {process.returncode}: {reason}")
        return Done(text, seconds, usage.ru_maxrss * 1024)

    def module(self, name: str, params: Mapping[str, Any], fails: bool = False) -> tuple[dict[str, Any], Sample]:
        """A module of the collection, run in the node as Ansible runs it; its answer, its time and its memory."""
        path = f"{in_node.LIBRARY}/ansible_collections/gpuops/restore/plugins/modules/{name}.py"
        command = ["env", f"PYTHONPATH={in_node.LIBRARY}", in_node.PYTHON, path]
        done = self.timed(command, json.dumps({"ANSIBLE_MODULE_ARGS": dict(params)}), status=int(fails))
        answer: dict[str, Any] = json.loads(done.output)
        if bool(answer.get("failed")) != fails:
            raise LabError(f"{name} failed: {answer.get('msg')}")
        return answer, Sample(done.seconds, done.peak)

    def ctr(self, *arguments: str) -> Sample:
        done = self.timed(["ctr", "-n", workload.NAMESPACE, *arguments])
        return Sample(done.seconds, done.peak)

    def run_counter(self, identifier: str, mib: int, tick_ms: int = 100) -> None:
        """The workload, once it counts."""
        workload.place_image(self.node)
        self.ctr("images", "import", workload.ARCHIVE)
        command = ["/bin/counter", "--mib", str(mib), "--tick-ms", str(tick_ms)]
        self.ctr("run", "--detach", "--log-uri", workload.log_uri(identifier), image.REFERENCE, identifier, *command)
        workload.await_count(self.node, identifier, 1, 60 + mib / 20)

    def checkpoint_of(self, mib: int) -> str:
        """Reference of a checkpoint of a workload with that much memory, made once a run and staged."""
        reference = f"gpuops.test/bench:{mib}"
        if reference not in workload.ctr(self.node, workload.NAMESPACE, "images", "ls", "-q").split():
            say(f"a checkpoint of {mib} MiB")
            self.run_counter(f"original-{mib}", mib)
            workload.checkpoint(self.node, f"original-{mib}", reference)
            self.remove(f"original-{mib}")
            self.module("containerd_checkpoint_stage", {"checkpoint": reference})
        return reference

    def remove(self, identifier: str) -> None:
        """The container is gone, and what either side leaves behind in the node."""
        workload.delete(self.node, identifier)
        self.timed(
            ["sh", "-c", f"rm -rf /tmp/ctrd-checkpoint* {STATE}/work {STATE}/receipts /var/log/{identifier}.log"]
        )

    def remove_image(self, reference: str) -> None:
        workload.ctr(self.node, workload.NAMESPACE, "images", "rm", "--sync", reference)

    def prepare_cache(self, state: str, mib: int = 0) -> None:
        """Warm: what both sides read lies in the page cache. Cold: nothing does, and nothing waits to be written.

        ``mib``: files that either side will write, for which there is memory.
        """
        self.timed(["sync"])
        if state == COLD:
            pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")
        else:
            self.timed(["sh", "-c", f"cat {CONTENT}/sha256/* $(find {STATE} -type f) >/dev/null"])
        self.back(mib)

    def back(self, mib: int) -> None:
        """Have the host give this machine the memory for files of that size.

        A host may take free memory back from a virtual machine (free page reporting), within seconds; whoever uses it
        first then waits for the host, ten times as long as for anything else here. Elsewhere this costs nothing.
        """
        if mib:
            size = mib * MIB + SPARE
            subprocess.run([sys.executable, "-c", TOUCH, str(size)], check=True, stdout=subprocess.DEVNULL)

    @contextlib.contextmanager
    def memory_of(self, identifier: str, mib: int) -> Iterator[None]:
        """Have that of a workload's process, too, and keep it from the host until the task is made that takes it."""
        task = str(self.node.inside(TASKS) / identifier)
        command = [sys.executable, "-c", TOUCH, str(mib * MIB + SPARE), task]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            try:
                assert holder.stdout is not None
                holder.stdout.readline()
                yield
            finally:
                holder.kill()


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)
