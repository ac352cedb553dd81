# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Quantities and times as messages, receipts and annotations have them."""

from __future__ import annotations

import datetime


def gib(size: int) -> str:
    """Bytes in GiB, with one decimal and the unit."""
    return f"{size / (1 << 30):.1f} GiB"


def utc_now() -> str:
    """Now, RFC 3339 in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
