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
SHMEM_LINKED = "7f00-7f10 r-xp 00000000 fe:00 7  /venv/lib/libnvshmem_host.so.3\n"
SHMEM = f"{SHMEM_LINKED}7f10-7f20 r-xp 00000000 fe:00 7  /venv/lib/nvshmem_bootstrap_uid.so.3\n"
CARD = {"uuid": "GPU-1", "name": "NVIDIA H200", "memory": 1}


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
    (proc / "42/environ").write_bytes(b"NCCL_P2P_DISABLE=1\0NCCL_CUMEM_HOST_ENABLE=0\0PATH=/bin\0")
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


P2P_OFF = b"NCCL_P2P_DISABLE=1"


def test_nccl_shares_host_memory_of_the_driver_unless_told_not_to(proc: Path) -> None:
    """NCCL 2.28 with P2P switched off, on two cards: the driver's restore answered CUDA_ERROR_UNKNOWN (999)."""
    environ(proc, 41, 42, add=P2P_OFF)
    (problem,) = peer_access.problems("job", info([CARD], [CARD]), str(proc))
    assert problem.code == "cuda_ipc" and problem.details == {"pids": [41, 42]}
    assert "NCCL_CUMEM_HOST_ENABLE=0" in problem.remedy and "NCCL_P2P_DISABLE=1" not in problem.message


@pytest.mark.parametrize("word", [b"NCCL_CUMEM_HOST_ENABLE=0", b"NCCL_SHM_DISABLE=1"])
def test_nccl_over_files_or_sockets_shares_none(proc: Path, word: bytes) -> None:
    environ(proc, 41, 42, add=P2P_OFF + b"\0" + word)
    assert peer_access.problems("job", info([CARD], [CARD]), str(proc)) == []
    environ(proc, 41, 42, add=word)
    assert len(peer_access.problems("job", info([CARD], [CARD]), str(proc))) == 1, "P2P is what it was"


def test_files_of_nccl_show_that_the_driver_was_not_asked(proc: Path) -> None:
    """It goes without where get_mempolicy is refused, as under Docker's seccomp profile."""
    environ(proc, 41, 42, add=P2P_OFF)
    for pid in (41, 42):
        with open(proc / str(pid) / "maps", "a", encoding="ascii") as maps:
            maps.write("7f20-7f30 rw-s 00000000 00:1a 9  /dev/shm/nccl-jcZQLf (deleted)\n")
    assert peer_access.problems("job", info([CARD], [CARD]), str(proc)) == []


def test_without_nccl_nothing_is_shared_by_it(proc: Path) -> None:
    (proc / "41/maps").write_text(CUDA, encoding="ascii")
    assert peer_access.problems("job", info([CARD], [CARD]), str(proc)) == []


# --- NVLink multicast


def cards(*numbers: int, name: str = "NVIDIA H200") -> list[Any]:
    return [{"uuid": f"GPU-{number}", "name": name, "memory": 1} for number in numbers]


def multicast(proc: Path, *gpus: list[Any], driver: str = "610.12") -> list[str]:
    found = peer_access.problems("job", info(*gpus, driver=driver), str(proc))
    return [problem.code for problem in found]


def environ(proc: Path, *pids: int, add: bytes) -> None:
    for pid in pids:
        (proc / str(pid) / "environ").write_bytes(b"WORLD_SIZE=2\0" + add + b"\0")


def test_three_gpus_of_one_job_may_use_multicast_whatever_the_driver(proc: Path) -> None:
    assert multicast(proc, cards(1, 2), cards(3)) == ["nvlink_multicast"]
    assert multicast(proc, cards(1, 2, 3)) == ["nvlink_multicast"], "one process with all of them"
    assert multicast(proc, cards(1), cards(2)) == [], "NCCL does not turn to it for two"
    assert multicast(proc, cards(1, 2), cards(3), driver="580.1") == ["cuda_ipc", "nvlink_multicast"]


def test_off_for_p2p_is_not_off_for_multicast(proc: Path) -> None:
    environ(proc, 41, 42, add=b"NCCL_P2P_DISABLE=1\0NCCL_SHM_DISABLE=1")
    assert multicast(proc, cards(1, 2), cards(3), driver="580.1") == ["nvlink_multicast"]
    environ(proc, 41, 42, add=b"NCCL_NVLS_ENABLE=0")
    assert multicast(proc, cards(1, 2), cards(3)) == []
    environ(proc, 41, add=b"NCCL_NVLS_ENABLE=1")
    assert multicast(proc, cards(1, 2, 4), cards(3)) == ["nvlink_multicast"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA A100-SXM4-80GB", []),
        ("NVIDIA L40S", []),
        ("NVIDIA GeForce RTX 4090", []),
        ("NVIDIA H100 80GB HBM3", ["nvlink_multicast"]),
        ("NVIDIA GB200", ["nvlink_multicast"]),
        ("Something of tomorrow", ["nvlink_multicast"]),
    ],
)
def test_chips_that_have_no_multicast(proc: Path, name: str, found: list[str]) -> None:
    assert multicast(proc, cards(1, 2, 3, 4, name=name)) == found


def test_nvshmem_that_was_never_begun_shares_nothing(proc: Path) -> None:
    """PyTorch for CUDA 13 links it into every process; only its start loads a bootstrap."""
    for pid in (41, 42):
        (proc / str(pid) / "maps").write_text(CUDA + NCCL + SHMEM_LINKED, encoding="ascii")
    environ(proc, 41, 42, add=b"NCCL_P2P_DISABLE=1\0NCCL_SHM_DISABLE=1\0NCCL_NVLS_ENABLE=0")
    assert multicast(proc, cards(1), cards(2), driver="580.1") == []


def test_nvshmem_has_a_word_of_its_own(proc: Path) -> None:
    for pid in (41, 42):
        (proc / str(pid) / "maps").write_text(CUDA + SHMEM, encoding="ascii")
    (problem,) = peer_access.problems("job", info(cards(1), cards(2), driver="610.1"), str(proc))
    assert (problem.code, problem.details) == ("nvlink_multicast", {"pids": [41, 42]})
    assert multicast(proc, cards(1), cards(2), driver="580.1") == ["cuda_ipc", "nvlink_multicast"]
    assert "NVSHMEM_DISABLE_NVLS=1" in problem.remedy
    environ(proc, 41, 42, add=b"NVSHMEM_DISABLE_P2P=1")
    assert multicast(proc, cards(1), cards(2), driver="580.1") == ["nvlink_multicast"]
    environ(proc, 41, 42, add=b"NVSHMEM_DISABLE_NVLS=1")
    assert multicast(proc, cards(1), cards(2)) == []
