# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoints that live on the node: the dump is the staged checkpoint, whatever fails, and gets its image later."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import (
    complete,
    leftovers,
    mark as capture_mark,
    settle,
)
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import CaptureResult
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import (
    reader as checkpoint_reader,
    stage,
    staged as staged_checkpoint,
    staging,
)
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import common
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples, criu_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import (
    BOX,
    NAME,
    PAUSED,
    RUNNING,
    STOPPED,
    Box,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CRIU_FILES, spec
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_access import changed

process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


def completed(box: Box, check: bool = False, **changes: object) -> CaptureResult:
    return complete.completed(box.client, changed(box.params, **changes), check)


def staged_names(box: Box) -> list[str]:
    return sorted(os.listdir(box.root)) if os.path.exists(box.root) else []


def test_the_dump_is_the_staged_checkpoint(box: Box, client: Client) -> None:
    predicted = box.capture(True, store="node")
    box.untouched()
    done = box.capture(store="node")
    assert predicted.actions == done.actions
    assert box.status() == RUNNING
    found = checkpoint_reader.load(client, NAME)
    assert (found.digest, found.on_node, found.captured_here) == (done.digest, True, True)
    assert checkpoint_reader.spec(client, found) == spec()
    assert found.writable_layer is not None and found.runtime_options is not None and found.facts.container == BOX
    # As a stage finds it: the files of the dump, once, and nothing else below the directory.
    there = stage.present(client, NAME, box.root, None, check=False)
    assert (there.changed, there.directory) == (False, done.staged)
    assert {name: Path(done.staged, name).read_bytes() for name in os.listdir(done.staged)} == CRIU_FILES
    assert staged_names(box) == [found.key]
    assert found.criu is not None and found.criu.size == sum(map(len, CRIU_FILES.values()))
    # Nothing of the memory is in containerd: what was diffed is the layer.
    assert box.fake.names().count("Diff/Diff") == 1


def test_twice_is_once_and_the_one_that_force_replaces_goes(box: Box) -> None:
    first = box.capture(store="node")
    for check in (True, False):
        again = box.capture(check, store="node")
        assert (again.changed, again.digest, again.staged) == (False, first.digest, first.staged)
    second = box.capture(store="node", force=True)
    assert second.digest != first.digest
    assert staged_names(box) == [second.digest.split(":")[1]]


def test_two_dumps_of_the_same_files_are_not_one(box: Box) -> None:
    """The same sizes and spec within one second: what was dumped later is what is restored."""
    first = box.capture(store="node")
    second = box.capture(store="node", name="example.test/box:2")
    assert first.digest != second.digest and len(staged_names(box)) == 2


def test_one_whose_files_are_gone_is_only_replaced_by_force(box: Box) -> None:
    first = box.capture(store="node")
    os.unlink(os.path.join(first.staged, "pages-1.img"))
    for check in (True, False):
        error = box.fails(check, store="node")
        assert error.code == "node_checkpoint_gone" and "force" in error.remedy
    second = box.capture(store="node", force=True)
    assert second.changed and staged_names(box) == [second.digest.split(":")[1]]


@pytest.mark.parametrize("store", ["node", "image"])
def test_one_below_another_directory_is_not_replaced(box: Box, tmp_path: Path, store: str) -> None:
    first = box.capture(store="node")
    error = box.fails(store=store, staging_dir=str(tmp_path / "elsewhere"))
    assert error.code == "node_checkpoint_gone"
    assert checkpoint_reader.load(box.client, NAME).digest == first.digest and os.listdir(first.staged)


def test_it_ends_when_the_dump_is_safe_and_before_its_image_is_written(box: Box) -> None:
    seen = []
    box.fake.on("Images/Create", lambda _context: seen.append(box.status()))
    box.fake.on("Images/Update", lambda _context: seen.append(box.status()))
    done = box.capture(leave="stopped")
    assert seen[0] == PAUSED and set(seen[1:]) == {STOPPED}
    found = checkpoint_reader.load(box.client, NAME)
    assert (found.digest, found.on_node) == (done.digest, False)
    assert done.seconds["standstill"] <= done.seconds["total"]
    assert not os.path.exists(box.root) and not box.run.exists()


def test_an_image_that_could_not_be_written_is_written_with_force_too(box: Box) -> None:
    box.fake.fail("Diff/Diff", "RESOURCE_EXHAUSTED", "no space left on device", after=1)
    box.fails(leave="stopped", force=True)
    box.fake.heal()
    for check in (True, False):
        again = box.capture(check, leave="stopped", force=True)
        assert again.actions == ["write the image from the checkpoint on the node"]
    assert not checkpoint_reader.load(box.client, NAME).on_node


def test_force_captures_anew_what_runs_beside_a_checkpoint_on_the_node(box: Box) -> None:
    first = box.capture(store="node")
    second = box.capture(force=True)
    assert second.digest != first.digest and "write the image" in second.actions


@pytest.mark.parametrize("store", ["image", "both"])
def test_what_a_reboot_would_lose_is_an_image_before_the_workload_ends(box: Box, store: str) -> None:
    seen: list[int] = []
    for call in ("Images/Create", "Images/Update"):
        box.fake.on(call, lambda _context: seen.append(box.status()))
    predicted = box.capture(True, leave="stopped", store=store, volatile=True)
    done = box.capture(leave="stopped", store=store, volatile=True)
    assert seen == [PAUSED] and box.status() == STOPPED
    assert predicted.actions == done.actions and done.actions[-1] == "write the image, then end the task"
    assert predicted.warnings == done.warnings == []
    assert not checkpoint_reader.load(box.client, NAME).on_node
    assert bool(done.staged) == (store == "both")


def test_an_image_that_cannot_be_written_lets_the_workload_go_on_where_a_reboot_loses_the_dump(box: Box) -> None:
    box.fake.fail("Diff/Diff", "RESOURCE_EXHAUSTED", "no space left on device", after=1)
    box.fails(leave="stopped", volatile=True)
    box.untouched()


def test_the_only_copy_in_memory_is_warned_of(box: Box) -> None:
    for check in (True, False):
        (warning,) = box.capture(check, leave="stopped", store="node", volatile=True).warnings
        assert box.root in warning and "reboot" in warning
    assert box.status() == STOPPED


def test_an_image_that_cannot_be_written_is_written_by_the_next_run(box: Box) -> None:
    box.fake.fail("Diff/Diff", "RESOURCE_EXHAUSTED", "no space left on device", after=1)
    error = box.fails(leave="stopped")
    assert box.status() == STOPPED
    assert error.details["checkpoint"]["name"] == NAME and "complete on the node" in error.remedy
    assert checkpoint_reader.load(box.client, NAME).on_node
    box.fake.heal()
    for check in (True, False):
        again = box.capture(check, leave="stopped")
        assert (again.changed, again.actions) == (True, ["write the image from the checkpoint on the node"])
    assert not checkpoint_reader.load(box.client, NAME).on_node
    assert not os.path.exists(box.root)


@pytest.mark.parametrize(("store", "stays"), [("image", False), ("both", True)])
def test_its_image_is_written_later(box: Box, client: Client, store: str, stays: bool) -> None:
    first = box.capture(store="node")
    earlier = checkpoint_reader.load(client, NAME)
    predicted = completed(box, check=True, store=store)
    assert checkpoint_reader.load(client, NAME) == earlier
    done = completed(box, store=store)
    assert (predicted.changed, predicted.actions) == (done.changed, done.actions) == (True, done.actions)
    found = checkpoint_reader.load(client, NAME)
    assert (found.digest, found.on_node, found.captured_here) == (done.digest, False, True)
    assert found.digest != first.digest and found.earlier == first.digest
    assert found.facts == earlier.facts and found.writable_layer == earlier.writable_layer
    assert checkpoint_reader.spec(client, found) == spec() and found.base == earlier.base
    assert staged_names(box) == ([found.key] if stays else [])
    if stays:
        assert not stage.present(client, NAME, box.root, None, check=False).changed
    again = completed(box, store=store)
    assert (again.changed, again.actions, again.digest) == (False, [], found.digest)
    # Nothing but the image keeps anything.
    del box.fake.state.images[NAME]
    assert box.kept(box.fake.state) == box.before


def test_what_was_restored_before_its_image_is_the_same_after(box: Box) -> None:
    first = box.capture(store="node")
    completed(box)
    found = checkpoint_reader.load(box.client, NAME)
    assert found.digest_for(first.digest) == first.digest
    assert found.digest_for("sha256:" + "0" * 64) == found.digest
    # Whoever only says so is not believed.
    box.fake.state.images[NAME].labels.pop(labels.CAPTURED)
    assert checkpoint_reader.load(box.client, NAME).earlier == ""


def test_it_does_not_leave_the_node_without_an_image(box: Box, client: Client) -> None:
    box.capture(store="node")
    with pytest.raises(RestoreError) as caught:
        common.load(client, NAME, "")
    assert caught.value.code == "checkpoint_on_node"


def test_one_of_another_container_is_not_completed(box: Box) -> None:
    box.capture(store="node")
    with pytest.raises(RestoreError) as caught:
        completed(box, container_id="other")
    assert caught.value.code == "checkpoint_name_taken"


def test_files_that_are_gone_make_no_image(box: Box, client: Client) -> None:
    done = box.capture(store="node")
    os.truncate(os.path.join(done.staged, "pages-1.img"), 10)
    for attempt in (lambda: completed(box), lambda: stage.present(client, NAME, box.root, None, False)):
        with pytest.raises(RestoreError) as caught:
            attempt()
        assert caught.value.code == "node_checkpoint_gone"


def test_the_only_copy_is_not_taken_for_a_staged_one(box: Box, client: Client) -> None:
    done = box.capture(store="node")
    key = done.digest.split(":")[1]
    kept = stage.absent(client, key, box.root, check=False, keep_captured=True)
    assert (kept.changed, kept.after, os.path.exists(done.staged)) == (False, "staged", True)
    assert kept.warnings and BOX in kept.warnings[0]
    assert leftovers.sweep(client, box.root, False, marks_root=str(box.run)).removed == []
    assert stage.absent(client, key, box.root, check=False).changed
    assert not os.path.exists(box.root)


def test_when_its_name_is_gone_so_is_its_memory(box: Box, client: Client) -> None:
    done = box.capture(store="node")
    del box.fake.state.images[NAME]
    for check in (True, False):
        swept = leftovers.sweep(client, box.root, check, marks_root=str(box.run))
        assert [one.kind for one in swept.removed] == [leftovers.NAMELESS]
    assert not os.path.exists(done.staged)


def test_another_namespaces_is_none_of_ours(box: Box, client: Client) -> None:
    done = box.capture(store="node")
    del box.fake.state.images[NAME]
    other = Client(client.address, "elsewhere")
    with other:
        assert leftovers.sweep(other, box.root, False, marks_root=str(box.run)).removed == []
    assert os.path.exists(done.staged)


# --- failures


def test_whatever_call_fails_nothing_is_left_or_all_is_there(box: Box) -> None:
    box.capture(store="node", leave="stopped")
    names = box.fake.names()
    box.forget()
    for position, name in enumerate(names):
        box.fake.heal()
        box.fake.state.tasks[BOX].status = RUNNING
        box.fake.fail_call(position)
        try:
            box.capture(store="node", leave="stopped")
        except RestoreError:
            if NAME not in box.fake.state.images:
                box.untouched()
                continue
        box.fake.heal()
        again = box.capture(store="node")
        assert again.recovered or not again.changed, name
        box.forget()


def test_half_a_dump_is_no_checkpoint(box: Box, tmp_path: Path) -> None:
    directory = tmp_path / "dump"
    directory.mkdir()
    at = 1 << 30
    area = criu_samples.Vma(at, criu_samples.MIB)
    criu_samples.dump(directory, criu_samples.Process(7, 0, [area], [(at, criu_samples.MIB, criu_samples.PRESENT)]))
    dump = {path.name: path.read_bytes() for path in directory.iterdir()}
    box.fake.state.dump = {**dump, "descriptors.json": b"[]"}
    assert box.capture(True, store="node").changed
    box.fake.state.dump["pages-1.img"] = dump["pages-1.img"][:-1]
    error = box.fails(store="node")
    assert (error.code, "pages-1.img" in error.message) == ("criu_images_incomplete", True)
    assert (box.status(), staged_names(box)) == (RUNNING, [])


def broken_off(box: Box, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """A run that is killed when it calls the function of _checkpoint.writer or staging: nothing is taken back."""

    class Killed(BaseException):
        pass

    module = staging if hasattr(staging, function) else complete.checkpoint_writer
    with monkeypatch.context() as patched:
        patched.setattr(module, function, lambda *_args, **_more: (_ for _ in ()).throw(Killed()))
        # Its own roll-back is what a kill does not leave time for.
        patched.setattr(staging, "remove", lambda *_args, **_more: None)
        patched.setattr("shutil.rmtree", lambda *_args, **_more: None)
        mark_file = capture_mark.MarkFile
        patched.setattr(mark_file, "clear", lambda _self: None)
        with pytest.raises(Killed):
            box.capture(store="node", leave="paused")
    box.fake.state.tasks[BOX].status = PAUSED


@pytest.mark.parametrize("function", ["adopt", "record"])
def test_killed_before_it_has_its_name_it_is_none(box: Box, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    broken_off(box, monkeypatch, function)
    if function == "record":
        assert staged_checkpoint.only_copies(box.root) != []
    done = settle.settled(box.client, box.params, check=False)
    assert (done.changed, box.status()) == (True, RUNNING)
    assert not os.path.exists(box.root) and not box.run.exists()


def test_killed_when_it_has_its_name_it_is_one(box: Box, client: Client) -> None:
    done = box.capture(store="node", leave="paused")
    place = (str(box.run), client.namespace, BOX)
    with capture_mark.locked(*place) as mark_file:
        mark = mark_file.read()
        assert mark is not None
        mark_file.write(dataclasses.replace(mark, phase=capture_mark.CAPTURING, staged=done.digest.split(":")[1]))
    settle.settled(box.client, box.params, check=False)
    again = box.capture(store="node")
    assert (again.changed, again.digest, box.status()) == (False, done.digest, RUNNING)
