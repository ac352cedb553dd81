# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What keeps containerd's garbage collection away from what is being made."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of ``_options.LEASE``."""

    DOCUMENTATION = r"""
options:
  lease:
    description:
      - Name of a lease, see M(gpuops.restore.containerd_lease), under which content and snapshots are made and read.
      - Without it the module has one of its own while it works.
    type: str
"""
