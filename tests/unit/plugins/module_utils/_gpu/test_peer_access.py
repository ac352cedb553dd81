# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs whose processes may share GPU memory are known before they are touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._gpu import peer_access

NCCL = "7f00-7f10 r-xp 00000000 fe:00 7  /venv/lib/python3.12/site-packages/nvidia/nccl/lib/libnccl.so.2\n"
CUDA = "7f00-7f10 r-xp 00000000 fe:00 7  /usr/lib/libcuda.so.1\n"
CARD = {"uuid": "GPU-1", "memory": 1}


def info(*gpus: list[Any], driver: str | None = "580.159.04") -> dict[str, Any]:
    return {
        "driver": {"version": driver},
        "processes": [{"pid": pid, "gpus": held} for pid, held in enumerate(gpus, start=41)],
    }


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Two ranks that have NCCL and were told nothing."""
    for pid in (41, 42):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "maps").write_text(CUDA + NCCL, encoding="ascii")
        (tmp_path / str(pid) / "environ").write_bytes(b"PATH=/bin\0WORLD_SIZE=2\0")
    return tmp_path


def test_two_ranks_are_refused(proc: Path) -> None:
    (problem,) = peer_access.problems("job", info([CARD], [CARD]), str(proc))
    assert problem.code == "cuda_ipc"
    assert problem.details == {"pids": [41, 42]}
    assert "NCCL_P2P_DISABLE=1" in problem.remedy
    unknown = peer_access.problems("job", info([CARD], [CARD], driver=None), str(proc))
    assert [found.code for found in unknown] == ["cuda_ipc"]


def test_one_that_keeps_off_p2p_leaves_nobody_to_share_with(proc: Path) -> None:
    (proc / "42/environ").write_bytes(b"NCCL_P2P_DISABLE=1\0PATH=/bin\0")
    assert peer_access.problems("job", info([CARD], [CARD]), str(proc)) == []
    (proc / "42/environ").write_bytes(b"NCCL_P2P_DISABLE=0\0")
    assert len(peer_access.problems("job", info([CARD], [CARD]), str(proc))) == 1


@pytest.mark.parametrize(
    "found",
    [
        info([CARD], [CARD], driver="610.12"),
        info([CARD]),
        info([CARD], []),
        info([CARD], [], [CARD]),
    ],
    ids=["a driver that can", "alone", "a launcher without memory", "one that has ended"],
)
def test_what_can_come_back_is_not_refused(proc: Path, found: dict[str, Any]) -> None:
    assert peer_access.problems("job", found, str(proc)) == []


def test_without_nccl_nothing_is_shared_by_it(proc: Path) -> None:
    (proc / "41/maps").write_text(CUDA, encoding="ascii")
    assert peer_access.problems("job", info([CARD], [CARD]), str(proc)) == []
