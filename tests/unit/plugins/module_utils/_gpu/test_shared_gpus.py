# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GPUs that are divided or served by a daemon, known before a process is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import shared_gpus

HELD = [{"uuid": "GPU-1", "name": "NVIDIA H200", "memory": 1}]


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Two processes of a task, 41 with CUDA, and one of somebody else."""
    for pid, command in ((41, "python"), (42, "sh"), (77, "cron")):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "comm").write_text(f"{command}\n", encoding="ascii")
        (tmp_path / str(pid) / "environ").write_bytes(b"PATH=/bin\0")
    (tmp_path / "uptime").touch()
    return tmp_path


def found(proc: Path, mig: bool = False, gpus: list[Any] | None = None) -> list[NodeError]:
    info = {
        "gpus": [{"uuid": "GPU-1", "index": 0, "mig": mig}, {"uuid": "GPU-2", "index": 1, "mig": False}],
        "processes": [{"pid": 41, "gpus": HELD if gpus is None else gpus}],
    }
    return shared_gpus.problems("job", info, [41, 42], str(proc))


def pipes(proc: Path, where: str = "tmp/nvidia-mps") -> None:
    directory = proc / "41/root" / where
    directory.mkdir(parents=True)
    (directory / "control").touch()


def daemon(proc: Path, pid: int) -> None:
    (proc / str(pid) / "comm").write_text("nvidia-cuda-mps\n", encoding="ascii")


def test_an_ordinary_process(proc: Path) -> None:
    assert found(proc) == []


def test_memory_on_a_divided_gpu(proc: Path) -> None:
    (problem,) = found(proc, mig=True)
    assert (problem.code, problem.details) == ("cuda_mig", {"pids": [41]})
    assert "(GPU 0 is divided)" in problem.message


def test_a_divided_gpu_that_it_does_not_use(proc: Path) -> None:
    assert found(proc, mig=True, gpus=[{**HELD[0], "uuid": "GPU-2"}]) == []


def test_an_instance_whose_memory_nobody_tells(proc: Path) -> None:
    capability = proc / "41/fd/7"
    capability.symlink_to("/dev/nvidia-caps/nvidia-cap21")
    assert [problem.code for problem in found(proc, mig=True, gpus=[])] == ["cuda_mig"]
    assert found(proc, gpus=[]) == [], "management of MIG alone divides nothing"
    capability.unlink()
    (proc / "41/environ").write_bytes(b"CUDA_VISIBLE_DEVICES=MIG-0a1b\0")
    (problem,) = found(proc, gpus=[])
    assert "divided)" not in problem.message


@pytest.mark.parametrize("where", ["tmp/nvidia-mps", "run/mps"])
def test_a_daemon_of_the_node_within_reach(proc: Path, where: str) -> None:
    if where != "tmp/nvidia-mps":
        (proc / "41/environ").write_bytes(f"CUDA_MPS_PIPE_DIRECTORY=/{where}\0".encode())
    pipes(proc, where)
    assert found(proc) == [], "pipes that a daemon has left"
    daemon(proc, 77)
    (problem,) = found(proc)
    assert (problem.code, problem.details) == ("cuda_mps", {"pids": [41]})


def test_a_daemon_out_of_reach(proc: Path) -> None:
    daemon(proc, 77)
    assert found(proc) == []
    pipes(proc)
    (proc / "41/environ").write_bytes(b"CUDA_MPS_PIPE_DIRECTORY=/nowhere\0")
    assert found(proc) == []


def test_a_daemon_in_the_container(proc: Path) -> None:
    """It has no CUDA state that the driver would tell of."""
    daemon(proc, 42)
    (problem,) = shared_gpus.problems("job", {"processes": []}, [41, 42], str(proc))
    assert (problem.code, problem.details) == ("cuda_mps", {"pids": [42]})
