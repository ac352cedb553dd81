# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which spare node takes in which workload: side by side within its room, and the sentence where none does."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._window import placement
from ansible_collections.gpuops.restore.plugins.module_utils._window.placement import Card, Need, Spare

GIB = 1 << 30
H100, A100 = "NVIDIA H100", "NVIDIA A100"


def need(called: str, memory: int = 1, cards: tuple[Card, ...] = (), host: str = "gpu-a", **more: Any) -> Need:
    given = {"name": called, "driver": "580.1", "architecture": "x86_64", "cpu_features": frozenset({"avx"}), **more}
    return Need(host=host, id=called, called=called, memory=memory * GIB, cards=cards, **given)


def spare(host: str, memory: int = 64, cards: tuple[Card, ...] = (), **more: Any) -> Spare:
    given = {"driver": "580.1", "disk": 1000 * GIB, "architecture": "x86_64", "cpu_features": frozenset({"avx", "amx"})}
    return Spare(host=host, memory=memory * GIB, cards=cards, **{**given, **more})


def card(size: int, name: str = H100) -> Card:
    return Card(name, size * GIB)


def places(needs: Any, spares: Any, route: str = "controller", kept: Any = None) -> dict[str, str]:
    found, refused = placement.place(needs, spares, route, kept)
    assert refused == {}
    return {called: host for (_host, called), host in found.items()}


def refused(needs: Any, spares: Any, route: str = "controller") -> list[str]:
    return list(placement.place(needs, spares, route)[1].values())


def test_the_first_spare_that_has_room_in_the_operators_order() -> None:
    both = [need("one", 30), need("two", 30), need("three", 30)]
    assert places(both, [spare("s2"), spare("s1")]) == {"one": "s2", "three": "s2", "two": "s1"}


def test_the_answer_does_not_hang_on_the_order_in_which_nodes_have_answered() -> None:
    needs = [need("one", 30), need("two", 40, host="gpu-b"), need("three", 20)]
    spares = [spare("s1"), spare("s2")]
    assert places(needs, spares) == places(list(reversed(needs)), spares)


def test_the_largest_come_first_so_that_what_fits_is_not_left_over() -> None:
    needs = [need("a", 1, (card(10),)), need("b", 1, (card(70),))]
    assert places(needs, [spare("s1", 512, (card(80),)), spare("s2", 512, (card(20),))]) == {
        "b": "s1",
        "a": "s1",
    }
    needs = [need("a", 1, (card(10),)), need("b", 1, (card(75),))]
    assert places(needs, [spare("s1", 512, (card(80),)), spare("s2", 512, (card(20),))]) == {
        "b": "s1",
        "a": "s2",
    }


def test_each_card_of_a_workload_gets_one_to_itself() -> None:
    two = (card(10), card(10))
    assert places([need("job", 1, two)], [spare("s1", 512, (card(80),)), spare("s2", 512, (card(80), card(80)))]) == {
        "job": "s2"
    }


def test_what_is_on_its_way_keeps_its_spare_and_its_room() -> None:
    needs = [need("one", 40), need("two", 40)]
    kept = {("gpu-a", "two"): "s1"}
    assert places(needs, [spare("s1"), spare("s2")], kept=kept) == {"two": "s1", "one": "s2"}
    # Also where its copy is there already.
    there = spare("s1", names=frozenset({"two"}))
    assert places([need("two", 40)], [there], kept=kept) == {"two": "s1"}


@pytest.mark.parametrize(
    ("wanted", "offered", "said"),
    [
        (
            need("job", 1, (card(1),)),
            spare("s1", 64, (card(80),), driver="570.1"),
            "has the driver 570.1 and not 580.1",
        ),
        (need("job", 1, (card(1),)), spare("s1", 64, (), driver=""), "has the driver none and not 580.1"),
        (
            need("job", 1, (card(1),)),
            spare("s1", 64, (card(80, A100),)),
            "has no room on its GPUs for NVIDIA H100 1.0 GiB",
        ),
        (need("job", 1, (card(9),)), spare("s1", 64, (card(8),)), "(it has NVIDIA H100 8.0 GiB)"),
        (need("job", 65), spare("s1"), "has 64.0 GiB of host memory left, of 65.0 GiB that it needs"),
        (need("job", 60, (card(5),)), spare("s1", 64, (card(80),)), "of 65.0 GiB that it needs"),
        (need("job", 10), spare("s1", disk=20 * GIB), "has 20.0 GiB of disk left, of 30.0 GiB that it needs"),
        (need("job"), spare("s1", architecture="aarch64"), "is aarch64 and not x86_64"),
        (need("job", cpu_features=frozenset({"avx512f"})), spare("s1"), "has a processor without avx512f"),
        (need("job"), spare("s1", names=frozenset({"job"})), "has a container job already"),
    ],
)
def test_what_a_spare_lacks_is_said_with_a_remedy(wanted: Need, offered: Spare, said: str) -> None:
    (sentence,) = refused([wanted], [offered])
    assert sentence.startswith("No spare node takes job of gpu-a in: s1 ") and said in sentence
    assert "maintenance_spares" in sentence


def test_by_the_route_direct_a_checkpoint_lies_on_the_disk_once() -> None:
    assert refused([need("job", 10)], [spare("s1", disk=20 * GIB)], "direct") == []


def test_what_nobody_knows_of_a_spare_is_no_reason_against_it() -> None:
    blind = Spare("s1", driver="580.1", cards=(Card(H100, None),))
    assert places([need("job", 10, (card(5),))], [blind]) == {"job": "s1"}


def test_two_of_one_name_go_to_two_spares_or_are_told_apart() -> None:
    same = [need("trainer"), need("trainer", host="gpu-b")]
    found, problems = placement.place(same, [spare("s1"), spare("s2")], "controller")
    assert found == {("gpu-a", "trainer"): "s1", ("gpu-b", "trainer"): "s2"} and problems == {}
    (sentence,) = refused(same, [spare("s1")])
    assert "trainer of gpu-b" in sentence and "workloads.restore_as, such as with {host}" in sentence


def test_needs_come_of_what_the_node_has_told() -> None:
    share = {"uuid": "GPU-1", "index": 0, "name": H100, "memory": 3 * GIB}
    container = {
        "id": "c1",
        "memory": 5,
        "gpu_processes": [{"pid": 7, "memory": 1, "gpus": [share]}, {"pid": 8, "memory": 1, "gpus": [share]}],
    }
    heard = {"facts": {"driver": "580.1"}, "room": {"architecture": "x86_64", "cpu_features": ["avx"]}}
    record = {"id": "c1", "called": "job", "restored": "job-gpu-a"}
    found = placement.need("gpu-a", record, heard, {"workloads": [container]})
    assert (found.cards, found.memory, found.name, found.driver) == ((card(6),), 5, "job-gpu-a", "580.1")


def test_spares_come_of_what_they_have_told() -> None:
    heard = {
        "facts": {"driver": None},
        "room": {"memory": 7, "disk": 8, "cards": [{"uuid": "GPU-1", "name": H100, "free": None}]},
    }
    found = Spare.from_answers("s1", heard, {"workloads": [{"id": "c9"}]})
    assert (found.driver, found.memory, found.disk, found.names) == ("", 7, 8, {"c9"})
    assert found.cards == (Card(H100, None),)


def test_no_host_is_in_two_moves_of_one_turn() -> None:
    def move(source: str, target: str) -> dict[str, Any]:
        return {"source": source, "target": target, "workloads": []}

    moves = [move("a", "s1"), move("a", "s2"), move("b", "s1"), move("c", "s3")]
    assert placement.turns(moves) == [[moves[0], moves[3]], [moves[1], moves[2]]]
    assert placement.turns([]) == []
