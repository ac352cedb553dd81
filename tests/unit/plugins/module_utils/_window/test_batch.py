# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node that is lost stops the batches after it as one that fails does."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.window_decision import window_decision


@pytest.mark.parametrize(
    ("active", "allowed", "part"),
    [
        ("abcd", 0, ""),
        ("abc", 0, "1 of 4 nodes of this one failed or stopped answering (d)"),
        ("abc", 25, ""),
        ("abc", "25", ""),
        ("ab", 25, "allows 25 percent"),
        ("abc", "few", "maintenance_max_fail_percentage is 'few'"),
    ],
)
def test_lost_nodes_stop_the_next_batch(active: str, allowed: Any, part: str) -> None:
    found = window_decision({"batch": list("abcd"), "active": list(active), "allowed": allowed}, "stop")
    assert part in found and bool(part) == bool(found)
