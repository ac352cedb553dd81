# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long another run is waited for."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of ``_options.BUSY``."""

    DOCUMENTATION = r"""
options:
  busy_timeout:
    description:
      - Seconds to wait for another run on this node that is at work on the same container, or that restores from what this one
        would remove. Then the module fails with the code C(busy) and says who is at work since when; nothing is touched.
      - Whoever works holds a lock that ends with its process. Check mode neither waits nor holds one.
    type: float
    default: 30.0
"""
