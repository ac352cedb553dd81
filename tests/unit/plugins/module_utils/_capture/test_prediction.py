# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Predictions of captures: which phases, by which of the earlier ones, and what is noted of a real run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import prediction, rates
from ansible_collections.gpuops.restore.plugins.module_utils._capture.prediction import Load, Sample
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import Box
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

GIB = 1 << 30
process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Box:
    return Box(fake, client, node, tmp_path, process)


def load(dump: int = 8 * GIB, vram: int = 0, goes_on: bool = True, **more: object) -> Load:
    return dataclasses.replace(Load(dump, vram, 0, goes_on), **more)


def sample(dump: int, dump_seconds: float, concurrency: float = 1.0, **seconds: float) -> Sample:
    return Sample({"dump": dump, "vram": 0, "written": 0}, {"dump": dump_seconds, **seconds}, concurrency)


@pytest.mark.parametrize(
    ("given", "standing", "besides"),
    [
        (load(), {"pause", "dump", "layer", "resume"}, {"preflight", "upload"}),
        (load(vram=GIB), {"cuda_suspend", "pause", "dump", "layer", "resume", "cuda_resume"}, {"preflight", "upload"}),
        (load(goes_on=False), {"pause", "dump", "layer", "upload"}, {"preflight"}),
        (load(goes_on=False, node_first=True), {"pause", "dump", "layer", "keep"}, {"preflight"}),
        (
            load(goes_on=False, node_first=True, completed=True),
            {"pause", "dump", "layer", "keep"},
            {"preflight", "complete"},
        ),
        (load(node_first=True), {"pause", "dump", "layer", "resume"}, {"preflight", "keep"}),
    ],
)
def test_standstill_and_total(given: Load, standing: set[str], besides: set[str]) -> None:
    found = prediction.predict(given, [])
    assert set(found.phases) == standing | besides and found.basis == prediction.ESTIMATE
    assert found.standstill == pytest.approx(sum(found.phases[name] for name in standing), abs=0.01)
    assert found.total == pytest.approx(sum(found.phases.values()), abs=0.01)


def test_more_memory_takes_longer_also_where_nothing_is_known() -> None:
    small, large = (prediction.predict(load(size), []) for size in (GIB, 40 * GIB))
    assert small.standstill < large.standstill and small.total < large.total


def test_the_nearest_in_size_tells() -> None:
    known = [sample(GIB, 1.3), sample(16 * GIB, 8.3)]
    # 0.3 s are the same for all sizes.
    assert prediction.predict(load(2 * GIB), known).phases["dump"] == pytest.approx(2.3)
    assert prediction.predict(load(32 * GIB), known).phases["dump"] == pytest.approx(16.3)


def test_of_two_alike_the_later_tells() -> None:
    assert prediction.predict(load(GIB), [sample(GIB, 9.0), sample(GIB, 2.0)]).phases["dump"] == 2.0


def test_those_side_by_side_take_their_share_of_the_processors() -> None:
    known = [sample(GIB, 4.0, concurrency=4.0), sample(GIB, 1.3)]
    assert prediction.predict(load(GIB, concurrency=4.0), known).phases["dump"] == 4.0
    assert prediction.predict(load(GIB), known).phases["dump"] == 1.3
    assert prediction.predict(load(GIB, concurrency=2.0), known[1:]).phases["dump"] == 2.6


def test_a_small_one_tells_what_it_costs_at_all() -> None:
    known = [sample(0, 0.1)]
    found = prediction.predict(load(int(1.3 * GIB)), known).phases["dump"]
    assert found == pytest.approx(1.1)
    assert prediction.predict(load(0), [sample(GIB, 0.2)]).phases["dump"] == pytest.approx(0.2)


def test_the_basis_is_what_all_that_grows_rests_on() -> None:
    phases = dict.fromkeys(("preflight", "pause", "layer", "resume", "upload"), 0.1)
    assert prediction.predict(load(), [sample(GIB, 1.0, **phases)]).basis == prediction.CAPTURES
    assert prediction.predict(load(vram=GIB), [sample(GIB, 1.0, **phases)]).basis == prediction.ESTIMATE


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"sizes": [], "seconds": {}, "concurrency": 1},
        {"sizes": {"dump": -1}, "seconds": {}, "concurrency": 1},
        {"sizes": {"dump": 1}, "seconds": {"dump": "x"}, "concurrency": 1},
        {"sizes": {}, "seconds": {}, "concurrency": 0},
    ],
)
def test_a_damaged_entry_is_none(document: object) -> None:
    assert Sample.from_document(document) is None


def test_what_a_capture_took_is_noted_and_foretells_the_next(box: Box, tmp_path: Path) -> None:
    file = str(tmp_path / "rates" / "capture-rates.json")
    before = box.capture(True, rates_file=file)
    assert before.predicted["basis"] == prediction.ESTIMATE and not rates.load(file)
    done = box.capture(rates_file=file)
    assert done.predicted == before.predicted and done.predicted["phases"].keys() <= done.seconds.keys()
    (noted,) = rates.load(file)
    assert noted.seconds == {name: took for name, took in done.seconds.items() if name in done.predicted["phases"]}
    after = box.capture(True, rates_file=file, force=True)
    assert after.predicted["basis"] == prediction.CAPTURES
    # Where the checkpoint is there, nothing is captured.
    assert box.capture(rates_file=file).predicted == {}
