# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures with the STAND-INS for the NVIDIA driver's libraries, under the real cuda-bindings and nvidia-ml-py.

What these tests show holds for our own code; that the driver does its part is shown on a real card (tests/gpu).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.helper_process import Child
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import devices, marks as gpu_marks
from ansible_collections.gpuops.restore.plugins.module_utils._host import memory as host_memory
from ansible_collections.gpuops.restore.tests.standin import standin


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with both stand-in libraries, compiled once."""
    return standin.build(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def bare_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[standin.World]:
    """A node without a driver, whose processes end with the test."""
    world = standin.World(tmp_path / "world")
    monkeypatch.setenv(standin.ENVIRONMENT, str(world.root))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    yield world
    world.close()


@pytest.fixture
def world(bare_world: standin.World, libraries: Path, monkeypatch: pytest.MonkeyPatch) -> standin.World:
    """A node with the stand-in driver in the loader's path, and one GPU."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    bare_world.add_gpu(0)
    return bare_world


@pytest.fixture
def no_patience(bare_world: standin.World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for a helper process is up as soon as it has nothing to answer but calls that hang.

    So a test waits for no time limit, and none is too short for a machine that is busy.
    """
    send, receive = Child.send, Child.receive
    owed: Counter[int] = Counter()

    def count_and_send(child: Child, message: Mapping[str, Any]) -> None:
        owed[child.pid] += 1
        send(child, message)

    def receive_unless_hanging(child: Child, deadline: float) -> dict[str, Any] | None:
        while True:
            answer = receive(child, min(deadline, time.monotonic() + 0.02))
            if answer is not None:
                owed[child.pid] -= "id" in answer
                return answer
            hanging = [call for call in bare_world.calls() if call.caller == child.pid and call.detail == "hang"]
            if time.monotonic() >= deadline or (hanging and len(hanging) >= owed[child.pid]):
                return None

    monkeypatch.setattr(Child, "send", count_and_send)
    monkeypatch.setattr(Child, "receive", receive_unless_hanging)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where restores that were begun are remembered."""
    return tmp_path / "run" / "cuda"


@pytest.fixture
def steps(world: standin.World, marks: Path) -> Any:
    """Runs steps (cuda_samples.Steps). Imported late, so that pytest may rewrite its assertions."""
    from ansible_collections.gpuops.restore.tests.unit.helpers.cuda_samples import Steps

    return Steps(world, marks)


@pytest.fixture
def gpus(
    fake: Any, client: Any, node: Any, world: standin.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A node whose containers are processes that the stand-in driver knows (gpu_node.GpuNode)."""
    from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_node import GpuNode

    found = GpuNode(fake, client, node, world, tmp_path / "gpus")
    monkeypatch.setattr(gpu_marks, "default_root", lambda: str(found.marks))
    available = host_memory.available
    monkeypatch.setattr(host_memory, "available", lambda _proc="": available(str(found.proc)))
    # The control device belongs to the kernel module, for which nothing stands in.
    monkeypatch.setattr(devices, "has_driver", lambda _device: True)
    return found
