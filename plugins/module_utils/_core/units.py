# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Quantities as messages say them."""

from __future__ import annotations


def gib(size: int) -> str:
    """Bytes in GiB, with one decimal and the unit."""
    return f"{size / (1 << 30):.1f} GiB"
