# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What very deep directories cost, and when it is said."""

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._oci import depth


def chain(levels: int) -> int:
    return sum(map(depth.steps, range(levels)))


@pytest.mark.parametrize(
    ("levels", "least", "most"),
    # What was measured, and what it means for others.
    [(955, 90.0, 96.0), (1500, 300.0, 400.0), (300, 0.0, 0.0)],
)
def test_a_chain_of_directories(levels: int, least: float, most: float) -> None:
    assert least <= depth.seconds(chain(levels)) <= most


def test_what_every_container_writes_is_not_worth_saying() -> None:
    # A hundred thousand files, twelve directories deep.
    assert depth.seconds(100_000 * depth.steps(12)) == 0.0
    assert depth.warnings("web", chain(200)) == depth.warnings("web", None) == depth.warnings("web", 0) == []


def test_the_time_is_told() -> None:
    (told,) = depth.warnings("web", chain(1500))
    assert told.startswith("web has written very deep directories") and "about 6 minutes" in told
    assert "about 30 seconds" in depth.warnings("web", int(30 / depth.SECONDS_PER_STEP))[0]
