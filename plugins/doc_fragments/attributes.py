# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the attributes in the modules' documentation mean; a module adds the details of its own."""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes of all modules; how far they support them is in the variants below."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: In check mode the module reads the node, changes nothing, and reports the changes that a run would make.
  diff_mode:
    description: In diff mode the module returns what is there beside what will be there.
  idempotent:
    description:
      - A second run with the same options, on a node that nobody else has changed in between, reports no change.
  platform:
    description: The operating system that the node must run.
    platforms: linux
    support: full
  action_group:
    description: Use C(group/gpuops.restore.restore) in C(module_defaults) to set options for all modules of this collection at once.
    support: full
    membership:
      - gpuops.restore.restore
"""

    # For modules that change something.
    FULL = r"""
options: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

    # For modules that only ask.
    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - The module changes nothing, in check mode or otherwise.
  diff_mode:
    support: N/A
    details:
      - The module changes nothing.
  idempotent:
    support: full
    details:
      - The module changes nothing.
"""
