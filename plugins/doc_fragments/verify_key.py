# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has to vouch for a checkpoint."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of ``_options.VERIFY_KEY``."""

    DOCUMENTATION = r"""
options:
  verify_key:
    description:
      - Public SSH keys, as files C(*.pub) have them. The checkpoint has to be signed by one of them
        (M(gpuops.restore.containerd_checkpoint_signature)). Empty, nobody asks.
    type: list
    elements: str
    default: []
"""
