# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.window_decision import window_decision
from ansible_collections.gpuops.restore.plugins.module_utils._window import pace

SERIAL = [1, "10%", "100%"]


def done(*batches: tuple[int, float]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for nodes, seconds in batches:
        found = pace.after_batch(found, nodes, seconds)
    return found


@pytest.mark.parametrize(
    ("serial", "total", "sizes"),
    [
        (SERIAL, 200, [1, 20, 179]),
        (SERIAL, 16, [1, 1, 14]),
        (["100%"], 3, [3]),
        ("30%", 10, [3, 3, 3, 1]),
        ([1, 5], 12, [1, 5, 5, 1]),
        (0, 4, [4]),
        (SERIAL, 1, [1]),
        (SERIAL, 0, []),
    ],
)
def test_batches_are_as_large_as_ansible_makes_them(serial: Any, total: int, sizes: list[int]) -> None:
    assert pace.sizes(serial, total) == sizes


def test_before_the_canary_nobody_can_tell_and_after_it_all_batches_are_like_it() -> None:
    assert pace.predict([], 5) is None and pace.left([], SERIAL, 16, 0) is None and pace.say([], SERIAL, 16, 0) == ""
    canary = done((1, 60.0))
    assert canary == [{"nodes": 1, "seconds": 60.0, "predicted": None}]
    assert (pace.predict(canary, 14), pace.left(canary, SERIAL, 16, 1)) == (60.0, 120.0)
    # A larger batch may take longer, and nobody knows by how much.
    assert pace.say(canary, SERIAL, 16, 1).endswith(" The 15 node(s) that are left will take at least 120 s.")
    assert pace.say(canary, 1, 3, 1).endswith(" The 2 node(s) that are left will take about 120 s.")


def test_two_batches_tell_what_each_node_costs() -> None:
    found = done((1, 70.0), (3, 90.0))
    assert (found[1]["predicted"], pace.predict(found, 12)) == (70.0, 180.0)
    said = pace.say(found, [1, 3, "100%"], 16, 4)
    assert said.startswith("The last batch, with 3 node(s), took 90 s (predicted 70 s). ")
    assert said.endswith(" The 12 node(s) that are left will take about 180 s.")
    assert pace.say(done((1, 70.0), (3, 90.0), (12, 181.0)), [1, 3, "100%"], 16, 16) == (
        "The last batch, with 12 node(s), took 181 s (predicted 180 s)."
    )


def test_no_node_makes_a_batch_shorter_and_none_takes_less_than_no_time() -> None:
    # A canary that met a slow disk.
    assert pace.predict(done((1, 100.0), (3, 80.0)), 12) == 90.0
    # Nothing but the nodes.
    assert pace.predict(done((1, 10.0), (4, 60.0)), 8) == pytest.approx(8 * 250 / 17, abs=0.1)


def test_batches_are_those_of_the_hosts_in_their_order() -> None:
    def host(begun: Any, ended: Any, phase: str, *hosts: str) -> dict[str, Any]:
        return {"batch": {"hosts": list(hosts), "begun": begun, "ended": ended}, "node": {"phase": phase}}

    nodes = {
        "a": host(200.0, 300.5, "done", "a", "b"),
        # Lost on the way.
        "b": host(200.2, "", "working", "a", "b"),
        "c": host(100.0, 160.0, "done", "c"),
        # Left alone, which takes no time.
        "d": host(160.0, 170.0, "skipped", "d"),
        "e": {},
    }
    assert pace.batches(nodes) == [
        {"nodes": 1, "seconds": 60.0, "predicted": None},
        {"nodes": 2, "seconds": 100.5, "predicted": 60.0},
    ]
    assert pace.over(nodes) == 4


def test_a_batch_that_an_earlier_run_has_begun_tells_nothing_of_the_others() -> None:
    def host(begun: float, name: str, planned: str) -> dict[str, Any]:
        history = [{"at": planned, "phase": "planned"}, {"at": "2026-12-02T20:30:00Z", "phase": "done"}]
        batch = {"hosts": [name], "begun": begun, "ended": begun + 4.0}
        return {"batch": batch, "node": {"phase": "done", "history": history}}

    # 20:00:00 and 20:01:00 of that day.
    began = 1796241600.0
    nodes = {"a": host(began, "a", "2026-12-02T19:00:00Z"), "b": {}, "c": {}}
    found = pace.batches(nodes)
    assert found == [{"nodes": 1, "seconds": 4.0, "predicted": None, "resumed": True}]
    assert pace.predict(found, 2) is None and pace.left(found, [1], 3, 1) is None
    said = pace.say(found, [1], 3, 1)
    assert said.startswith(
        "The last batch, with 1 node(s), took 4 s. What the 2 node(s) that are left will take nobody"
    )
    # The next one is this run's own; the node's clock is a little behind.
    nodes["b"] = host(began + 60, "b", "2026-12-02T20:00:58Z")
    found = pace.batches(nodes)
    assert found[1] == {"nodes": 1, "seconds": 4.0, "predicted": None} and pace.left(found, [1], 3, 2) == 4.0
    assert pace.say(pace.batches({"a": nodes["a"]}), [1], 1, 1) == "The last batch, with 1 node(s), took 4 s."


def test_a_batch_that_the_time_of_the_window_does_not_bear_does_not_begin() -> None:
    canary = {"batch": {"hosts": ["a"], "begun": 1000.0, "ended": 1600.0}, "node": {"phase": "done"}}
    known: dict[str, Any] = {"nodes": {"a": canary, "b": {}}, "batch": ["b"], "now": 1600.0}
    for minutes in (None, 20, "20"):
        assert window_decision({**known, "minutes": minutes}, "late") == ""
    said = window_decision({**known, "minutes": 19}, "late")
    assert "10 of the 19 minutes" in said and "its 1 node(s) would take about 10" in said
    assert "'soon'; it has to be a number" in window_decision({**known, "minutes": "soon"}, "late")
    # The first batch, of which nobody can tell.
    assert window_decision({"nodes": {"a": {}}, "batch": ["a"], "now": 5.0, "minutes": 1}, "late") == ""
