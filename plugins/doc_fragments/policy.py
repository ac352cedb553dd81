# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of the host a restored container may have; see ``_options.POLICY``."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options in ``_options.POLICY``."""

    DOCUMENTATION = r"""
options:
  runtimes:
    description:
      - The runtimes that may run restored containers. A checkpoint that names another one is refused, for the name of a runtime and the
        programs and directories among its options are the host's.
      - Of entries with the recorded name, the one with the recorded program is taken, else the first, with a warning. Of the recorded
        options, the cgroup driver, the session keyring and the owner of standard input and output are taken over, and nothing else.
      - Without it, the node's default runtime, as containerd's configuration has it, and V(io.containerd.runc.v2).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the runtime, such as V(io.containerd.runc.v2), or the path of its shim.
        type: str
        required: true
      binary_name:
        description:
          - The program that the shim runs; runc where it is not given.
        type: str
      root:
        description:
          - Directory in which runc keeps its states; the shim's own where it is not given.
        type: path
      no_pivot_root:
        description:
          - For nodes whose root file system is a ramdisk.
        type: bool
        default: false
"""
