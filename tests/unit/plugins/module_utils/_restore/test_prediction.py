# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a window will take: defaults, a measurement, what earlier restores took, and from which receipts."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._restore import prediction
from ansible_collections.gpuops.restore.plugins.module_utils._restore.prediction import Load, Rates, Sample, predict
from ansible_collections.gpuops.restore.tests.unit.helpers.receipts import GIB, receipt

MIB = 1 << 20


def test_without_anything_known_it_is_an_estimate() -> None:
    small, large = predict(Load(GIB), Rates()), predict(Load(11 * GIB), Rates())
    assert small.basis == large.basis == prediction.ESTIMATE
    assert large.seconds - small.seconds == pytest.approx(10 * GIB / prediction.PAGES_RATE, abs=0.02)
    assert predict(Load(GIB, vram=8 * GIB), Rates()).seconds == pytest.approx(
        small.seconds + prediction.GPU_FIXED + 8 * GIB / prediction.GPU_RATE, abs=0.02
    )


def test_a_measurement_bounds_the_pages_and_says_nothing_of_the_gpu() -> None:
    rates = Rates(copy=2.0 * GIB)
    found = predict(Load(10 * GIB), rates)
    assert found.basis == prediction.MEASURED
    assert found.seconds == pytest.approx(prediction.FIXED + 10 / 2.0 * prediction.CRIU_FACTOR, abs=0.02)
    assert predict(Load(10 * GIB, vram=GIB), rates).basis == prediction.ESTIMATE


def test_what_a_restore_took_it_takes_again() -> None:
    for size, seconds in ((64 * MIB, 0.5), (GIB, 3.0), (40 * GIB, 9.0)):
        found = predict(Load(size), Rates([Sample(size, seconds)]))
        assert (found.seconds, found.basis) == (pytest.approx(seconds, abs=0.02), prediction.RESTORES)


def test_a_small_one_tells_no_rate() -> None:
    """Else the fixed part, which is most of it, would grow with the size."""
    found = predict(Load(4 * GIB), Rates([Sample(8 * MIB, 0.3)]))
    assert 2.0 < found.seconds < 5.0


def test_two_sizes_tell_the_fixed_part_and_the_rate() -> None:
    samples = [Sample(GIB, 1.0 + 0.5), Sample(4 * GIB, 4.0 + 0.5)]
    assert predict(Load(16 * GIB), Rates(samples)).seconds == pytest.approx(16.5)
    assert predict(Load(0), Rates(samples)).seconds == pytest.approx(0.5)


def test_one_that_was_disturbed_is_outvoted() -> None:
    samples = [Sample(size * GIB, 0.5 + size) for size in (1, 2, 3, 4, 5)] + [Sample(2 * GIB, 60.0)]
    assert predict(Load(4 * GIB), Rates(samples)).seconds == pytest.approx(4.5, abs=0.5)
    # Larger and faster: noise, not a rate.
    backwards = [Sample(GIB, 3.0), Sample(2 * GIB, 2.0)]
    assert predict(Load(4 * GIB), Rates(backwards)).seconds > 4.0


def test_the_gpu_has_a_line_of_its_own() -> None:
    samples = [Sample(9 * GIB, 4.0, vram=8 * GIB, gpu_seconds=2.0)]
    found = predict(Load(9 * GIB, vram=8 * GIB), Rates(samples))
    assert (found.seconds, found.basis) == (pytest.approx(6.0, abs=0.02), prediction.RESTORES)
    assert predict(Load(9 * GIB, vram=8 * GIB), Rates([Sample(9 * GIB, 4.0)])).basis == prediction.ESTIMATE


def test_the_disk_counts_before_the_window_or_in_it() -> None:
    rates = Rates([Sample(GIB, 1.0)], disk=0.5 * GIB)
    prewarmed, uncached = predict(Load(GIB, prewarm=GIB), rates), predict(Load(GIB, uncached=GIB), rates)
    assert (prewarmed.seconds, prewarmed.prewarm_seconds) == (pytest.approx(1.0), 2.0)
    assert (uncached.seconds, uncached.prewarm_seconds) == (pytest.approx(3.0), 0.0)
    seen = Rates([Sample(GIB, 1.0, disk=2.0 * GIB)], disk=0.5 * GIB)
    assert predict(Load(GIB, prewarm=GIB), seen).prewarm_seconds == 0.5


def test_those_that_share_processors_take_longer() -> None:
    assert prediction.concurrency(1, 8, 2) == 1.0
    assert prediction.concurrency(8, 8, 2) == 4.0
    assert prediction.concurrency(8, 2, 2) == 1.0
    alone = Rates([Sample(GIB, 1.0)])
    assert predict(Load(GIB, concurrency=4.0), alone).seconds == pytest.approx(4.0)
    both = Rates([Sample(GIB, 1.0), Sample(GIB, 2.5, concurrency=4.0)])
    assert predict(Load(GIB, concurrency=4.0), both).seconds == pytest.approx(2.5)
    assert predict(Load(GIB), both).seconds == pytest.approx(1.0)


def test_with_writers_beside_criu_the_pages_take_a_fraction() -> None:
    measured = Rates(copy=float(GIB))
    by_criu, by_four, by_many = (predict(Load(8 * GIB, writers=each), measured).seconds for each in (0, 4, 64))
    assert by_criu == pytest.approx(prediction.FIXED + 16.0)
    assert by_four == pytest.approx(prediction.FIXED + 2.0)
    assert by_many == pytest.approx(prediction.FIXED + 8 * GIB / prediction.MOST_RATE, abs=0.01)
    # What restores of this node took says more.
    assert predict(Load(8 * GIB, writers=4), Rates([Sample(8 * GIB, 1.5)])).seconds == pytest.approx(1.5)


def test_a_receipt_tells_what_the_restore_took() -> None:
    found = Sample.from_receipt(receipt(predicted={"crowd": 2.0}))
    assert found == Sample(GIB, pytest.approx(1.2), GIB // 2, pytest.approx(2.0), 2.0)
    assert found is not None
    assert Sample.from_document(found.document()) == found
    assert set(found.document()) == {"size", "seconds", "vram", "gpu_seconds", "crowd", "disk"}, (
        "as older files have it"
    )
    read = Sample.from_receipt(receipt(prewarm={"bytes": GIB, "read": GIB, "seconds": 2.0, "skipped": ""}, gpu=None))
    assert read and (read.disk, read.vram, read.concurrency) == (GIB / 2, 0, 1.0)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"seconds": {}},
        receipt(prewarm=None),
        receipt(seconds={"container": "x", "create": 1, "start": 1, "window": 2}),
        receipt(prewarm={"bytes": 0, "read": 0, "seconds": 0.0, "skipped": ""}),
        receipt(prewarm={"bytes": GIB, "read": 0, "seconds": 0.0, "skipped": "too little memory"}),
    ],
)
def test_a_receipt_that_lacks_something_tells_nothing(document: dict[str, Any]) -> None:
    assert Sample.from_receipt(document) is None


@pytest.mark.parametrize("document", [None, 7, [], {"size": 1}, {**Sample(1, 1.0).document(), "crowd": 0.0}])
def test_what_is_no_sample_is_none(document: Any) -> None:
    assert Sample.from_document(document) is None


def test_memory_volumes_are_filled_before_the_window() -> None:
    plain, filled = (predict(Load(1 << 20, volumes=size), Rates()) for size in (0, 1 << 30))
    assert filled.seconds == plain.seconds
    assert filled.prewarm_seconds == plain.prewarm_seconds + 2.0


def test_deep_directories_are_in_the_window_and_tell_nothing_of_others() -> None:
    flat, deep = predict(Load(GIB), Rates()), predict(Load(GIB, layout=93.0), Rates())
    assert deep.seconds - flat.seconds == pytest.approx(93.0)
    assert deep.result()["layout"] == 93.0 and "layout" not in flat.result()
    assert Sample.from_receipt(receipt(predicted=flat.result())) is not None
    assert Sample.from_receipt(receipt(predicted=deep.result())) is None
