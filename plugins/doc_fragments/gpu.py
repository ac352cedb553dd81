# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CUDA processes, and the calls of NVIDIA's driver."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of ``_options.GPU``, and of the other options that begin with ``GPU_``."""

    DOCUMENTATION = r"""
options:
  cuda_timeout:
    description:
      - Seconds that all calls of the CUDA driver for one workload may take together. Where something has to be taken back, the
        way back may take as long again.
    type: int
    default: 600
  driver_root:
    description:
      - Root directory of the NVIDIA driver's installation, where it is not in the library path of the node.
      - Without it, C(/run/nvidia/driver) is tried after the default library path.
    type: path
"""

    LOCK = r"""
options:
  lock_timeout:
    description:
      - Seconds for a process to finish the work that it has begun on the GPU, when it is to be locked.
      - Several processes may wait for each other, as the ranks of a collective operation do. They are locked together, in short
        attempts, after each of which all are unlocked again, and a last one with half of this time.
    type: float
    default: 10.0
"""

    PROCESSES = r"""
options:
  container_id:
    description:
      - Name of the container whose processes are meant. They are found in the cgroup of its task.
      - containerd and its Python packages are only needed with this option.
    type: str
  pids:
    description:
      - Process ids on the node.
    type: list
    elements: int
"""
