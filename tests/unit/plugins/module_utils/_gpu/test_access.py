# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._gpu.access import GpuAccess


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"driver_root": None, "cuda_timeout": 30}, GpuAccess(cuda_timeout=30.0)),
        (
            {"driver_root": "/opt/driver", "cuda_timeout": 1, "lock_timeout": 2.5, "owner": "me"},
            GpuAccess(driver_root="/opt/driver", cuda_timeout=1.0, lock_timeout=2.5),
        ),
    ],
)
def test_options_are_mapped(options: dict[str, object], expected: GpuAccess) -> None:
    assert GpuAccess.from_options(options) == expected


def test_a_look_gets_no_more_time_than_the_calls() -> None:
    assert GpuAccess(cuda_timeout=600.0).limited_to(60.0).cuda_timeout == 60.0
    assert GpuAccess(cuda_timeout=5.0).limited_to(60.0).cuda_timeout == 5.0


def test_a_root_that_is_named_is_looked_in(tmp_path: object) -> None:
    reading = GpuAccess(driver_root="/nonexistent").read_nvml()
    assert "/nonexistent" in reading.reason
