# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Windows are predicted, and what they took is learned; on the STAND-INS for containerd and the driver's libraries."""

from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import page_cache
from ansible_collections.gpuops.restore.plugins.module_utils._restore import (
    batch as restore_batch,
    prediction,
    rates as restore_rates,
)
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_node import Cuda, GpuNode

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

HELD = {standin.uuid(0): 8 * standin.GIB}


@pytest.fixture
def rates(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "rates" / "rates.json"


def test_a_window_is_predicted_compared_and_learned_from(
    gpus: GpuNode, rates: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_rates, "copy_rate", lambda: 2.0 * standin.GIB)
    gpus.add("train", [Cuda(memory=HELD, more={"delay_restore": 300})], held=[HELD])
    job = gpus.job("train", {"rates_file": str(rates), "prewarm": page_cache.AUTO})
    (planned,) = restore_batch.restore_all(gpus.client.another, [job], 0, True)
    _verdict, checked = restore_batch.check_all(gpus.client.another, [job])
    assert checked["train"] is not None
    assert planned.shown()["predicted"] == checked["train"].result()
    # Nothing tells how fast this node's GPU is, so the default: 8 GiB take two seconds.
    assert planned.shown()["predicted"]["basis"] == prediction.ESTIMATE
    assert planned.shown()["predicted"]["seconds"] > 2.0
    assert not rates.exists()
    (done,) = restore_batch.restore_all(gpus.client.another, [job], 0, False)
    assert done.failure is None
    assert done.receipt["seconds"]["predicted"] == done.shown()["predicted"]["seconds"] > 2.0
    (kept,) = json.loads(rates.read_text())
    assert kept["vram"] == HELD[standin.uuid(0)] and 0.2 < kept["gpu_seconds"] < 2.0
    # What runs has no window, and is no experience.
    (again,) = restore_batch.restore_all(gpus.client.another, [job], 0, False)
    assert (again.changed, again.shown()["predicted"]) == (False, None)
    assert again.receipt == done.receipt
    assert len(json.loads(rates.read_text())) == 1
    # The prediction of the next one of its kind rests on it.
    gpus.add("next", [Cuda(memory=HELD)], held=[HELD])
    next_ = gpus.job("next", {"rates_file": str(rates), "prewarm": page_cache.AUTO})
    (planned,) = restore_batch.restore_all(gpus.client.another, [next_], 0, True)
    found = planned.shown()["predicted"]
    assert found["basis"] == prediction.RESTORES
    assert found["seconds"] == pytest.approx(done.seconds["window"], abs=0.15)


def test_what_the_cache_lacks_is_read_before_the_window_or_in_it(
    gpus: GpuNode, rates: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus.add("plain", [Cuda(None)])
    half = 256 << 20
    monkeypatch.setattr(page_cache, "missing", lambda path: [(0, half)] if path.endswith("inventory.img") else [])
    monkeypatch.setattr(restore_rates, "disk_rate", lambda *_piece: float(half))
    found = {}
    for mode in (page_cache.AUTO, page_cache.ALWAYS, page_cache.NEVER):
        job = gpus.job("plain", {"rates_file": str(rates), "prewarm": mode})
        (planned,) = restore_batch.restore_all(gpus.client.another, [job], 0, True)
        found[mode] = planned.shown()["predicted"]
    assert found[page_cache.AUTO]["ahead"] == found[page_cache.ALWAYS]["ahead"] == 1.0
    assert found[page_cache.NEVER]["ahead"] == 0.0
    assert found[page_cache.NEVER]["seconds"] == pytest.approx(found[page_cache.AUTO]["seconds"] + 1.0, abs=0.1)


def test_many_workloads_share_the_processors(
    gpus: GpuNode, rates: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    names = [f"w{number}" for number in range(8)]
    for name in names:
        gpus.add(name, [Cuda(None)])
    jobs = [gpus.job(name, {"rates_file": str(rates)}) for name in names]
    for parallel, concurrency in ((0, 4.0), (1, 1.0), (4, 2.0)):
        found = restore_batch.restore_all(gpus.client.another, jobs, parallel, True)
        assert {result.shown()["predicted"]["crowd"] for result in found} == {concurrency}


def test_nothing_is_predicted_of_what_is_not_known(gpus: GpuNode, rates: pathlib.Path) -> None:
    gpus.add("train", [Cuda(None)])
    gpus.add("later", [Cuda(None)], stage=False)
    options = {"rates_file": str(rates)}
    jobs = [
        gpus.job("train", options, checkpoint="example.test/none:1"),
        gpus.job("later", options),
        gpus.job("other", options, checkpoint="example.test/train-checkpoint:1", route="descriptor"),
    ]
    _verdict, found = restore_batch.check_all(gpus.client.another, jobs)
    assert found["train"] is None and found["other"] is None
    # Until then it will have been staged.
    assert found["later"] is not None
