# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which captured checkpoints go: by number, by age, and never what is in use."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import prune
from ansible_collections.gpuops.restore.plugins.module_utils._capture.prune import Captured, PruneParams
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.original import Source
from ansible_collections.gpuops.restore.plugins.module_utils._container import container as container_steps
from ansible_collections.gpuops.restore.plugins.module_utils._container.params import ContainerParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._host import run_lock
from ansible_collections.gpuops.restore.plugins.module_utils._image import image as image_steps
from ansible_collections.gpuops.restore.plugins.module_utils._image.state import ImageParams
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, NAME, Box
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc)
DAY = 86400

process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


def taken(container: str, days: float) -> Captured:
    when = (NOON - datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Captured(f"{container}:{days:g}", f"sha256:{container}{days:g}", container, when)


A = [taken("a", days) for days in (1, 5, 9, 20)]
B = [taken("b", 30)]


@pytest.mark.parametrize(
    ("keep", "older_than", "gone"),
    [
        (2, None, ["a:9", "a:20"]),
        (0, None, ["a:1", "a:5", "a:9", "a:20", "b:30"]),
        (None, 8 * DAY, ["a:9", "a:20", "b:30"]),
        (1, 8 * DAY, ["a:9", "a:20"]),
        (3, 8 * DAY, ["a:20"]),
        (9, 0, []),
    ],
)
def test_what_goes(keep: int | None, older_than: int | None, gone: list[str]) -> None:
    judged = prune.judge([*A, *B], PruneParams(keep, older_than), NOON, {})
    assert [one.name for one in judged if not one.kept] == gone
    assert all(one.kept for one in judged if one.name not in gone)


def test_what_is_in_use_stays_and_does_not_count_less() -> None:
    judged = prune.judge(A, PruneParams(keep=1), NOON, {A[2].digest: "used"})
    assert [one.name for one in judged if not one.kept] == ["a:5", "a:20"]


def test_one_whose_age_nobody_knows_stays_unless_it_is_counted_out() -> None:
    unknown = dataclasses.replace(A[3], taken_at="")
    assert prune.judge([unknown], PruneParams(older_than=1), NOON, {})[0].kept
    assert not prune.judge([unknown], PruneParams(keep=0), NOON, {})[0].kept


@pytest.mark.parametrize(
    ("age", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 7 * DAY), ("2w", 14 * DAY)]
)
def test_ages(age: str, seconds: int) -> None:
    assert prune.seconds_of(age) == seconds


@pytest.mark.parametrize("age", ["", "7", "d", "-1d", "1.5d", "1y", "7 d", "१d"])
def test_ages_that_cannot_be_read(age: str) -> None:
    with pytest.raises(InputError) as caught:
        prune.seconds_of(age)
    assert caught.value.code == "retention_invalid"


def test_without_a_rule_nothing_goes(client: Client) -> None:
    with pytest.raises(InputError) as caught:
        prune.prune(client, PruneParams(), False)
    assert caught.value.code == "retention_invalid"


def rule(box: Box, keep: int = 0) -> PruneParams:
    return PruneParams(keep=keep, staging_dir=box.root, marks_root=str(box.run))


def test_captures_go_with_what_is_staged_of_them_and_nothing_else(box: Box, client: Client) -> None:
    box.capture(keep_staged=True)
    box.capture(name="example.test/box:2")
    before = set(box.fake.state.images)
    predicted = prune.prune(client, rule(box), True)
    assert set(box.fake.state.images) == before
    done = prune.prune(client, rule(box), False)
    assert predicted == done
    assert {one.name for one in done.removed} == {NAME, "example.test/box:2"}
    assert {one.container for one in done.removed} == {BOX}
    # The checkpoint that the sample node has was imported.
    assert before - set(box.fake.state.images) == {NAME, "example.test/box:2"}
    assert CHECKPOINT_NAME in box.fake.state.images
    assert not Path(box.root).exists()
    assert prune.prune(client, rule(box), False).removed == []


def test_other_owners_and_containers_are_not_looked_at(box: Box, client: Client) -> None:
    box.capture()
    for other in ({"owner": "me"}, {"containers": ("other",)}):
        done = prune.prune(client, dataclasses.replace(rule(box), **other), False)
        assert (done.removed, done.kept) == ([], [])
    assert prune.prune(client, dataclasses.replace(rule(box), containers=(BOX,)), True).removed


def test_what_keeps_a_workload_paused_stays(box: Box, client: Client) -> None:
    box.capture(leave="paused")
    (kept,) = prune.prune(client, rule(box), False).kept
    assert BOX in kept.kept and NAME in box.fake.state.images


def test_what_a_container_was_restored_from_stays(box: Box, client: Client) -> None:
    box.capture(keep_staged=True)
    wanted = ContainerParams("copy", Source(NAME), staging_dir=box.root)
    container_steps.present(client, wanted, False)
    (kept,) = prune.prune(client, rule(box), False).kept
    assert "copy" in kept.kept and NAME in box.fake.state.images


def test_what_another_run_restores_from_stays(
    box: Box, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "default_root", lambda: str(tmp_path / "run" / "locks"))
    client.busy_seconds = 0.0
    box.capture()
    with run_lock.kept(box.fake.state.images[NAME].target.digest, 0.0):
        done = prune.prune(client, rule(box), False)
    assert done.removed == [] and NAME in box.fake.state.images
    assert "at work" in done.kept[0].kept and done.warnings


def test_memory_that_another_name_has_stays(box: Box, client: Client) -> None:
    done = box.capture(store="node")
    record = box.fake.state.images[NAME]
    other = type(record).FromString(record.SerializeToString())
    other.name, other.labels[labels.OWNER] = "example.test/box:kept", "me"
    box.fake.state.images[other.name] = other
    predicted = prune.prune(client, rule(box), True)
    pruned = prune.prune(client, rule(box), False)
    assert predicted == pruned and [one.name for one in pruned.removed] == [NAME]
    assert NAME not in box.fake.state.images and Path(done.staged, "pages-1.img").is_file()


def test_memory_on_the_node_goes_with_its_last_name(box: Box, client: Client) -> None:
    box.capture(store="node")
    predicted = prune.prune(client, rule(box), True)
    assert predicted == prune.prune(client, rule(box), False)
    assert f"remove what is staged of {NAME}" in predicted.actions and not Path(box.root).exists()


def test_an_image_that_cannot_be_deleted_keeps_its_memory(box: Box, client: Client) -> None:
    done = box.capture(store="node")
    box.fake.fail("Images/Delete", "UNAVAILABLE", "away")
    with pytest.raises(RestoreError):
        prune.prune(client, rule(box), False)
    assert NAME in box.fake.state.images and Path(done.staged, "pages-1.img").is_file()


def test_one_whose_memory_is_gone_is_none_of_the_newest(box: Box, client: Client) -> None:
    box.capture()
    newest = box.capture(store="node", name="example.test/box:2")
    Path(newest.staged, "pages-1.img").unlink()
    for check in (True, False):
        done = prune.prune(client, rule(box, keep=1), check)
        assert done.removed == []
        assert "is not (whole)" in {one.name: one.kept for one in done.kept}["example.test/box:2"]
        (warning,) = done.warnings
        assert "example.test/box:2" in warning and box.root in warning


def test_a_cleanup_leaves_what_was_captured_here(box: Box, client: Client) -> None:
    box.capture()
    for check in (True, False):
        found = image_steps.absent(client, ImageParams(NAME, keep_captured=True), check)
        assert not found.changed and "only copy" in found.warnings[0]
    assert NAME in box.fake.state.images
    # What was imported is somewhere else too.
    del box.fake.state.images[CHECKPOINT_NAME].labels[labels.CAPTURED]
    assert image_steps.absent(client, ImageParams(CHECKPOINT_NAME, keep_captured=True, force=True), True).changed
    box.fake.state.images[NAME].labels[labels.CAPTURED] = "sha256:of-before"
    assert image_steps.absent(client, ImageParams(NAME, keep_captured=True), True).changed
