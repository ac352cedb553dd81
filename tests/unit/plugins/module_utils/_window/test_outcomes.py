# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.receipt_lines import receipt_lines

CHECKPOINT = {"name": "registry.local/checkpoints/one:001", "digest": "sha256:2f5c"}


@pytest.mark.parametrize(
    ("receipt", "line"),
    [
        (
            {"checkpoint": CHECKPOINT, "container": {"id": "one"}, "seconds": {"window": 0.512}},
            "one: runs from registry.local/checkpoints/one:001; its window took 0.5 s",
        ),
        ({"checkpoint": {"digest": "sha256:2f5c"}, "container": {}}, "one: runs from sha256:2f5c"),
        (
            {"checkpoint": CHECKPOINT, "seconds": {"standstill": 2.14}},
            "one: captured as registry.local/checkpoints/one:001; it stood still for 2.1 s",
        ),
        ({"checkpoint": None, "seconds": {"standstill": None}}, "one: captured as its checkpoint"),
    ],
)
def test_a_line_says_what_became_of_a_workload(receipt: dict[str, Any], line: str) -> None:
    assert receipt_lines({"one": receipt}) == [line]


def test_they_come_in_the_order_of_their_names() -> None:
    assert [line[0] for line in receipt_lines({"b": {}, "a": {}})] == ["a", "b"]
    assert receipt_lines({}) == []
