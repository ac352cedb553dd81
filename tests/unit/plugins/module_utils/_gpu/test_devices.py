# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What device nodes tell. Making one needs root, so what stat says of a node is given."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._gpu import devices
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.nvml import Gpu, Reading
from ansible_collections.gpuops.restore.tests.unit.helpers.specs import cri_spec, ctr_spec

GPU_MAJOR = 195


def test_the_control_device_shows_the_driver(tmp_path: Path) -> None:
    device = tmp_path / "nvidiactl"
    assert not devices.has_driver(str(device))
    device.touch()
    assert devices.has_driver(str(device))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (cri_spec(), True),
        (ctr_spec(), False),
        ({}, False),
        ({"linux": {"devices": [{"path": "/dev/null"}]}}, False),
        ({"linux": {"devices": [{"path": "/dev/nvidia-uvm"}]}}, True),
        ({"mounts": [{"destination": "/dev/nvidia0", "source": "/dev/nvidia0"}]}, True),
        ({"mounts": [{"destination": "/gpu", "source": "/dev/nvidia3"}]}, True),
        # The driver's libraries alone make no GPU.
        ({"mounts": [{"destination": "/usr/lib/libcuda.so.1", "source": "/opt/nvidia/libcuda.so.1"}]}, False),
    ],
)
def test_what_is_meant_for_a_gpu(spec: dict[str, Any], expected: bool) -> None:
    assert devices.wanted_by(spec) is expected


def node(major: int, minor: int, kind: int = stat.S_IFCHR) -> os.stat_result:
    fields = [0] * os.stat_result.n_fields
    fields[0] = kind | 0o666
    # The first ten are a tuple's; st_rdev is only an attribute.
    return os.stat_result(fields[:10], {"st_rdev": os.makedev(major, minor)})


def test_a_node_counts_by_its_number_and_not_by_its_name(tmp_path: Path) -> None:
    nodes = {
        "nvidia0": node(GPU_MAJOR, 3),
        "nvidia7": node(GPU_MAJOR, 7),
        "nvidia8": node(1, 3),
        "nvidia9": node(GPU_MAJOR, 9, stat.S_IFREG),
        "nvidia10": node(GPU_MAJOR, 255),
        "nvidiactl": node(GPU_MAJOR, 255),
        "nvidia-uvm": node(508, 0),
    }
    for name in nodes:
        (tmp_path / name).touch()
    assert devices.minors(str(tmp_path), lambda path: nodes[os.path.basename(path)]) == {3, 7}


def test_a_process_that_is_gone_sees_none(tmp_path: Path) -> None:
    gpus = (Gpu("GPU-a", 0, "H1", None, None, None, False, 0),)
    assert devices.visible_gpus(1, Reading(gpus=gpus), str(tmp_path)) == []


def test_a_directory_without_nodes_shows_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "1/root/dev").mkdir(parents=True)
    gpus = (Gpu("GPU-a", 0, "H1", None, None, None, False, 0),)
    assert devices.visible_gpus(1, Reading(gpus=gpus), str(tmp_path)) == []
