# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small helpers of the tests that use the STAND-INS for the NVIDIA driver's libraries."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import state as gpu_state
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.access import GpuAccess
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.state import StateParams, StateResult
from ansible_collections.gpuops.restore.plugins.module_utils._host import processes as host_processes
from ansible_collections.gpuops.restore.plugins.module_utils._host.processes import Process
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_access import changed


def process(pid: int) -> Process:
    """The process that has this id now."""
    (found,) = host_processes.identify([pid])
    return found


def soon(seconds: float = 20.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


@contextlib.contextmanager
def meeting(world: standin.World, what: str, pids: Sequence[int]) -> Iterator[None]:
    """In the block no call of the driver comes back before all of them have begun, as only calls side by side can."""
    for pid in pids:
        world.set(f"pids/{pid}/hang_{what}")

    def watch() -> None:
        for pid in pids:
            world.wait_for(what, pid)
        for pid in pids:
            world.unset(f"pids/{pid}/hang_{what}")

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()


class Steps:
    """Runs steps; every run is predicted by check mode first."""

    def __init__(self, world: standin.World, marks: Path) -> None:
        self.world = world
        self.marks = marks

    def params(self, *pids: int, **changes: Any) -> StateParams:
        access = GpuAccess(marks_root=str(self.marks), driver_container="/nonexistent", cuda_timeout=30.0)
        return changed(StateParams(pids=pids, access=access), **changes)

    def states(self) -> dict[str, int]:
        return {path.name: self.world.state(int(path.name)) for path in (self.world.root / "pids").iterdir()}

    def run(self, *pids: int, **changes: Any) -> StateResult:
        params = self.params(*pids, **changes)
        before, log = self.states(), len(self.world.order())
        predicted = gpu_state.ensure(None, params, True)
        assert (self.states(), len(self.world.order())) == (before, log), "check mode has made a call"
        done = gpu_state.ensure(None, params, False)
        assert (predicted.changed, predicted.actions) == (done.changed, done.actions)
        assert [entry["after"] for entry in predicted.processes] == [entry["after"] for entry in done.processes]
        assert done.changed == (self.states() != before)
        return done

    def refused(self, *pids: int, **changes: Any) -> RestoreError:
        """An error before the first call, which check mode predicts."""
        before, log, found = self.states(), len(self.world.order()), []
        for check in (True, False):
            with pytest.raises(RestoreError) as caught:
                gpu_state.ensure(None, self.params(*pids, **changes), check)
            found.append(caught.value)
        assert (found[0].code, found[0].message) == (found[1].code, found[1].message)
        assert (self.states(), len(self.world.order())) == (before, log)
        return found[1]

    def fails(self, *pids: int, **changes: Any) -> RestoreError:
        """An error in the middle."""
        with pytest.raises(RestoreError) as caught:
            gpu_state.ensure(None, self.params(*pids, **changes), False)
        return caught.value
