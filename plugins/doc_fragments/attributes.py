# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the attributes in the modules' documentation mean; each module adds how far it supports them."""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes of all modules; further variants below."""

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
"""

    # The `module_defaults` group that sets the socket once for a whole play.
    ACTIONGROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/gpuops.restore.restore) in C(module_defaults) to set options for all modules of this collection at once.
    support: full
    membership:
      - gpuops.restore.restore
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
