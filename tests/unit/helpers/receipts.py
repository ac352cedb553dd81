# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Receipts as a restore writes them, as far as a prediction reads them."""

from __future__ import annotations

from typing import Any

GIB = 1 << 30


def receipt(**changes: Any) -> dict[str, Any]:
    """One of 1 GiB with 512 MiB of GPU memory, with ``changes``."""
    seconds = {"container": 0.1, "create": 0.2, "start": 0.9, "gpu": 2.5, "window": 3.2}
    prewarm = {"bytes": GIB, "read": 0, "seconds": 0.0, "skipped": ""}
    return {"seconds": seconds, "prewarm": prewarm, "gpu": {"bytes": GIB // 2}, **changes}
