# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JAX programs that the driver would not restore are known before they are touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._gpu import xla

PLUGIN = "7f00-7f10 r-xp 0 fe:00 7  /venv/lib/python3.12/site-packages/jax_plugins/xla_cuda13/xla_cuda_plugin.so\n"
CARD = {"uuid": "GPU-1", "name": "NVIDIA H200", "memory": 1}


def found(proc: Path, environ: bytes, maps: str = PLUGIN, gpus: tuple[Any, ...] = (CARD,)) -> list[str]:
    (proc / "41").mkdir(exist_ok=True)
    (proc / "41/maps").write_text(maps, encoding="ascii")
    (proc / "41/environ").write_bytes(environ)
    info = {"driver": {"version": "580.159.04"}, "processes": [{"pid": 41, "gpus": list(gpus)}]}
    problems = xla.problems("job", info, str(proc))
    assert all("XLA_PYTHON_CLIENT_ALLOCATOR=platform" in one.remedy for one in problems)
    assert all(one.details == {"pids": [41]} for one in problems)
    return [one.code for one in problems]


@pytest.mark.parametrize(
    "environ",
    [
        b"PATH=/bin\0",
        b"XLA_PYTHON_CLIENT_PREALLOCATE=false\0",
        b"XLA_PYTHON_CLIENT_ALLOCATOR=bfc\0",
        b"XLA_PYTHON_CLIENT_ALLOCATOR=cuda_async\0",
    ],
)
def test_its_own_allocator_is_refused(tmp_path: Path, environ: bytes) -> None:
    assert found(tmp_path, environ) == ["xla_allocator"]


def test_the_drivers_own_allocations_come_back(tmp_path: Path) -> None:
    assert found(tmp_path, b"PATH=/bin\0XLA_PYTHON_CLIENT_ALLOCATOR=platform\0") == []


def test_what_is_no_jax_or_holds_nothing_is_not_refused(tmp_path: Path) -> None:
    assert found(tmp_path, b"", maps="7f00-7f10 r-xp 0 fe:00 7  /usr/lib/libcuda.so.1\n") == []
    assert found(tmp_path, b"", gpus=()) == []
