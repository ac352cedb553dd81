# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A play in check mode, whose earlier tasks have made nothing."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of ``_options.PREPARED``; each module says in its attribute ``check_mode`` what it takes for granted."""

    DOCUMENTATION = r"""
options:
  assume_prepared:
    description:
      - In check mode, take it for granted that earlier tasks of the play have done what check mode kept them from. What that
        is for this module, its attribute C(check_mode) says.
      - Means nothing outside check mode.
    type: bool
    default: false
"""
