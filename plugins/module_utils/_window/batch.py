# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the next batch of nodes may begin. Ansible itself counts those that failed, not those that it lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def stop(batch: Sequence[str], active: Sequence[str], allowed: Any) -> str:
    """Why no further batch may begin; empty where one may.

    ``batch``: its hosts as it began, ``active``: those that neither failed nor were lost, ``allowed``: percent.
    """
    try:
        most = float(allowed)
    except (TypeError, ValueError):
        return f"maintenance_max_fail_percentage is {allowed!r}; it has to be a number."
    missing = [host for host in batch if host not in active]
    if len(missing) * 100 <= most * len(batch):
        return ""
    return (
        f"No further batch begins: {len(missing)} of {len(batch)} nodes of this one failed or stopped answering "
        f"({', '.join(missing)}), and maintenance_max_fail_percentage allows {most:g} percent. See to them, then run "
        "the window again; it goes on from where each node is."
    )
