# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import volumes as memory_volumes
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.volumes import MemoryVolume
from ansible_collections.gpuops.restore.plugins.module_utils._container.volumes import Volume
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import Descriptor
from ansible_collections.gpuops.restore.plugins.module_utils._restore import shared_volumes
from ansible_collections.gpuops.restore.plugins.module_utils._restore.demand import Demand, judge
from ansible_collections.gpuops.restore.plugins.module_utils._restore.params import Job, Settings


def demand(name: str, digest: str, paused: tuple[str, ...] = (), container: str = "", live: bool = False) -> Demand:
    job = Job.from_options({"name": name, "checkpoint": "c", "gpu": "auto"}, Settings())
    record = MemoryVolume(
        Descriptor(memory_volumes.MEDIA_TYPE, f"sha256:{digest * 64}", 1),
        "/dev/shm",
        "/pod/shm",
        used=1000,
        container=container or name,
        shared=tuple(sorted({"a", "b", "c"} - {name})),
        paused=paused,
    )
    return Demand(job, live=live, memory=10, volumes=(Volume(record, "/nonexistent/volumes/shared"),))


def content(demands: list[Demand]) -> set[str]:
    return {volume.record.digest[7] for one in demands for volume in one.volumes}


def test_the_same_content_is_of_one_moment() -> None:
    demands, refused = shared_volumes.agree([demand("a", "1"), demand("b", "1")])
    assert (refused, content(demands)) == ({}, {"1"})


def test_what_was_taken_while_the_others_stood_still_counts() -> None:
    for order in (1, -1):
        pair = [demand("a", "1"), demand("b", "2", ("a",))][::order]
        demands, refused = shared_volumes.agree(pair)
        assert (refused, content(demands)) == ({}, {"2"})
        for one in demands:
            chosen = one.job.container.shared_volumes["/pod/shm"]
            assert chosen.digest.startswith("sha256:2")
            # The content is another's, and so is nothing else.
            assert chosen.container == one.job.name and one.job.name not in chosen.shared
    three = [demand("a", "1"), demand("b", "2", ("a",)), demand("c", "3", ("a", "b"))]
    assert content(shared_volumes.agree(three)[0]) == {"3"}


@pytest.mark.parametrize(
    "demands",
    [
        [demand("a", "1"), demand("b", "2")],
        [demand("a", "1"), demand("b", "2", ("c",))],
        [demand("a", "1"), demand("b", "2", ("a",)), demand("c", "3", ("a",))],
        [demand("a", "1"), demand("copy", "1", container="a")],
    ],
)
def test_other_moments_are_refused(demands: list[Demand]) -> None:
    same, refused = shared_volumes.agree(demands)
    assert same == demands
    assert {name: error.code for name, error in refused.items()} == {
        one.job.name: "memory_volume_moments" for one in demands
    }


def test_deleted_files_of_one_are_in_its_own_content_alone() -> None:
    def linked(one: Demand) -> Demand:
        volume = one.volumes[0]
        return replace(one, volumes=(replace(volume, record=replace(volume.record, links=True)),))

    _demands, refused = shared_volumes.agree([linked(demand("a", "1")), demand("b", "2", ("a",))])
    assert "that a has open there" in refused["b"].message
    assert shared_volumes.agree([demand("a", "1"), linked(demand("b", "2", ("a",)))])[1] == {}


def test_what_runs_already_is_not_refused() -> None:
    _demands, refused = shared_volumes.agree([demand("a", "1", live=True), demand("b", "2")])
    assert list(refused) == ["b"]


def test_those_that_are_not_restored_with_it_are_named() -> None:
    pair = [demand("a", "1"), demand("b", "1")]
    (told,) = shared_volumes.warnings(pair[0], pair)
    assert "of a was also one of c," in told
    assert shared_volumes.warnings(replace(pair[0], live=True), pair) == []


def test_memory_counts_once_for_all() -> None:
    pair = [demand("a", "1"), demand("b", "1")]
    assert judge(pair, 1020, thorough=False).refused == {}
    short = judge(pair, 1019, thorough=False).refused
    assert list(short) == ["b"]
    (error,) = judge(pair[:1], 999, thorough=False).refused["a"]
    assert error.code == "host_memory_short" and "memory volumes" in error.message


def test_those_that_share_a_volume_are_restored_one_after_another() -> None:
    """Another one need not wait, nor does one that shares with nobody here."""
    other = demand("other", "4")
    alone = replace(other, volumes=(replace(other.volumes[0], place="/nonexistent/volumes/alone"),))
    turns = shared_volumes.turns([demand("a", "1"), demand("b", "1"), alone])
    assert turns["a"] == turns["b"] and len(turns["a"]) == 1
    assert "other" not in turns
