# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the collection keeps things on the node."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of ``_options.STAGING``."""

    DOCUMENTATION = r"""
options:
  staging_dir:
    description:
      - State directory on the node, mode 0700. Staged checkpoints, the CRIU configuration and log of each container, receipts and
        evidence lie below it.
    type: path
    default: /var/lib/gpuops-restore
"""
