# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a node has the driver, and whether a container is meant for a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._gpu import node as gpu_node
from ansible_collections.gpuops.restore.tests.unit.helpers.specs import cri_spec, ctr_spec


def test_the_control_device_shows_the_driver(tmp_path: Path) -> None:
    device = tmp_path / "nvidiactl"
    assert not gpu_node.has_driver(str(device))
    device.touch()
    assert gpu_node.has_driver(str(device))


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
    assert gpu_node.wanted_by(spec) is expected
