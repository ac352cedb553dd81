# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose the things are that a module makes and touches."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of ``_options.OWNERSHIP``; a module that does more with them describes them anew."""

    DOCUMENTATION = r"""
options:
  owner:
    description:
      - The owner label, C(io.gpuops.restore/owner), of what this collection makes. The module changes and removes only what
        carries it.
    type: str
    default: gpuops.restore
  force:
    description:
      - Act on what carries another owner's label, or none, too.
    type: bool
    default: false
"""
