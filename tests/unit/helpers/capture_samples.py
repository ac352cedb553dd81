# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A running container in the test double of containerd, whose processes live in a /proc made of files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import capture as capture_steps
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import CaptureParams, CaptureResult
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import SPEC_TYPE
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.access import GpuAccess
from ansible_collections.gpuops.restore.plugins.module_utils._host import processes as host_processes
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, CRIU_FILES, spec
from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_node import FakeNode
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Snapshot, State, Task
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_access import changed

BOX, NAME = "box", "example.test/box:1"
RUNNING, STOPPED, PAUSED = 2, 3, 4
MOUNTINFO = "1 0 0:50 / / rw - overlay overlay rw\n2 1 0:51 / /proc rw - proc proc rw\n"


class Box:
    """The container ``box`` with one process, which tests may add to. ``here``: its part of /proc and cgroups."""

    def __init__(self, fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, pid: int) -> None:
        self.fake, self.client, self.pid = fake, client, pid
        self.root = node.root
        self.run = tmp_path / "run" / "capture"
        self.here = FakeNode(tmp_path / "node")
        self.hold(pid)
        state = fake.state
        state.dump = dict(CRIU_FILES)
        state.snapshots[("overlayfs", BOX)] = Snapshot(node.base.chain_id, 2, {})
        state.containers[BOX] = record(node)
        state.tasks[BOX] = Task(None, pid, RUNNING)
        #: The spec that runc runs; None: the record's.
        self.running: dict[str, Any] | None = None
        self._shim = self.here.proc / str(os.getpid())
        self._shim.mkdir(exist_ok=True)
        self.bundle = tmp_path / "bundles" / BOX
        (self.bundle.parent / "pod").mkdir(parents=True)
        (self._shim / "cwd").symlink_to(self.bundle.parent / "pod")
        (self._shim / "mountinfo").write_text("", encoding="ascii")
        self.params = CaptureParams(
            BOX,
            NAME,
            staging_dir=node.root,
            checkpoint_timeout=5.0,
            marks_root=str(self.run),
            access=GpuAccess(
                cuda_timeout=30.0,
                marks_root=str(tmp_path / "run" / "cuda"),
                driver_container="/nonexistent",
                **self.here.options,
            ),
        )
        self.before = self.kept(state)

    def hold(self, *pids: int) -> None:
        """Exactly these processes are in the container."""
        self.here.hold(pids)
        for pid in pids:
            (self.here.proc / str(pid) / "mountinfo").write_text(MOUNTINFO, encoding="ascii")
            (self.here.proc / str(pid) / "fd").mkdir(exist_ok=True)

    def capture(self, check: bool = False, **changes: Any) -> CaptureResult:
        """One run of the step."""
        recorded = self.fake.state.containers.get(BOX)
        if recorded is not None:
            self.bundle.mkdir(exist_ok=True)
            spec_text = json.dumps(self.running) if self.running else recorded.spec.value.decode()
            (self.bundle / "config.json").write_text(spec_text, encoding="utf-8")
        return capture_steps.captured(self.client, changed(self.params, **changes), check)

    def fails(self, check: bool = False, **changes: Any) -> RestoreError:
        """A run that fails."""
        with pytest.raises(RestoreError) as caught:
            self.capture(check, **changes)
        return caught.value

    def refused(self, **changes: Any) -> RestoreError:
        """A run that is refused before it has changed anything, as check mode foretells."""
        predicted = self.fails(True, **changes)
        self.fake.heal()
        found = self.fails(**changes)
        assert (predicted.code, predicted.message) == (found.code, found.message)
        assert "Tasks/Pause" not in self.fake.names()
        self.untouched()
        return found

    def status(self) -> int:
        """The task's."""
        return self.fake.state.tasks[BOX].status

    def untouched(self) -> None:
        """The task runs, and there is nothing but what was there before, blobs that nobody refers to apart."""
        assert self.status() == RUNNING
        assert self.kept(self.fake.state) == self.before
        assert not os.path.exists(self.root)
        assert not self.run.exists()

    def forget(self) -> None:
        """The checkpoint goes, with what is staged of it."""
        self.fake.state.images.pop(NAME, None)
        shutil.rmtree(self.root, ignore_errors=True)

    @staticmethod
    def kept(state: State) -> dict[str, Any]:
        """A listing without what containerd collects by itself."""
        return {kind: rows for kind, rows in state.listing().items() if kind != "blobs"}


def record(node: Node, **changes: Any) -> Any:
    """The container's record."""
    runc = message("containerd.runc.v1.Options", binary_name="runc").SerializeToString()
    runtime = message("containerd.services.containers.v1.Container.Runtime", name="io.containerd.runc.v2")
    runtime.options.CopyFrom(pack("containerd.runc.v1.Options", runc))
    found = spec(**changes)
    return message(
        "containerd.services.containers.v1.Container",
        id=BOX,
        image=BASE_NAME,
        labels={"io.gpuops.restore/owner": "gpuops.restore"},
        runtime=runtime,
        spec=pack(SPEC_TYPE, json.dumps(found).encode()),
        snapshotter="overlayfs",
        snapshot_key=BOX,
    )


def end(pid: int) -> None:
    """Have a process end; as a zombie it is no process any more."""
    os.kill(pid, signal.SIGKILL)
    while host_processes.start_time(pid) is not None:
        time.sleep(0.005)


def process() -> Iterator[int]:
    """A process that lives as long as a test."""
    with subprocess.Popen(["sleep", "600"]) as found:
        yield found.pid
        found.kill()
