# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All workloads of a node, on the STAND-INS for containerd and for the driver's libraries; and admission by memory."""

from __future__ import annotations

import dataclasses
import itertools
import json
import queue
import threading
import time
from typing import Any, Callable

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import original as checkpoint_original
from ansible_collections.gpuops.restore.plugins.module_utils._container import (
    container as container_steps,
    task as task_steps,
    task_alive,
)
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, TERMINAL, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._host import huge_pages as host_huge_pages
from ansible_collections.gpuops.restore.plugins.module_utils._restore import (
    batch as restore_batch,
    preparation,
    records,
)
from ansible_collections.gpuops.restore.plugins.module_utils._restore.params import Job
from ansible_collections.gpuops.restore.plugins.module_utils._restore.result import Result
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers import told
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    CONFIG,
    RUNTIME_OPTIONS,
    add_checkpoint,
    spec,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.gpu_node import Cuda, GpuNode

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GIB = standin.GIB
#: Seconds after which a test that waits for what does not come gives up.
LONG = 60.0
GPU = standin.uuid(0)


def add(gpus: GpuNode, name: str, gib: int, **more: Any) -> None:
    gpus.add(name, [Cuda(memory={GPU: gib * GIB}, more=more)], held=[{GPU: gib * GIB}])


def wait_until(what: Callable[[], bool]) -> None:
    give_up = time.monotonic() + LONG
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def codes(found: list[Result]) -> list[str | None]:
    return [result.failure.code if result.failure else None for result in found]


def test_one_that_fails_does_not_disturb_the_others(gpus: GpuNode) -> None:
    add(gpus, "one", 1)
    add(gpus, "ill", 1, fail_restore=999)
    add(gpus, "two", 1)
    found = gpus.run(gpus.job("one"), gpus.job("ill"), gpus.job("two"))
    assert [result.job.name for result in found] == ["one", "ill", "two"]
    assert codes(found) == [None, "cuda_restore_failed", None]
    assert sorted(gpus.alive()) == sorted([gpus.started["one"][0][0], gpus.started["two"][0][0]])
    assert sorted(gpus.fake.state.containers) == ["one", "two"]
    # What is mended is restored, and the others are left alone.
    add(gpus, "ill", 1)
    again = gpus.run(gpus.job("one"), gpus.job("ill"), gpus.job("two"))
    assert [(result.failure, result.changed) for result in again] == [(None, False), (None, True), (None, False)]


def test_each_tells_how_far_it_is(gpus: GpuNode, monkeypatch: pytest.MonkeyPatch) -> None:
    add(gpus, "one", 1)
    add(gpus, "two", 1)
    found = told.listen(monkeypatch)
    restored = gpus.run(gpus.job("one"), gpus.job("two"))
    assert [result.failure for result in restored] == [None, None]
    for name in ("one", "two"):
        last = [one for one in found if one.name == name][-6:]
        assert [one.phase for one in last] == ["prepare", "container", "task", "gpu", "alive", "receipt"]
        # What comes after the window is as long as the operator wants it.
        assert [one.expected is not None for one in last] == [False, True, True, True, False, False]


#: Where something that nobody foresaw is met: while a checkpoint is read, prepared, made a container of, and proved.
PLACES = {
    "read": (checkpoint_original, "read"),
    "prepared": (preparation, "prepare"),
    "container": (container_steps, "present"),
    "task": (task_steps, "started"),
    "alive": (task_alive, "stays_alive"),
    "receipt": (records, "write_receipt"),
}


#: Where one is met makes a difference; which one it is does not, so each is met at two places.
UNFORESEEN = [TypeError("no"), RecursionError("deep"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates")]


@pytest.mark.parametrize(("place", "raised"), list(zip(PLACES, itertools.cycle(UNFORESEEN))))
def test_what_nobody_foresaw_is_one_workload_s_failure(
    gpus: GpuNode, monkeypatch: pytest.MonkeyPatch, place: str, raised: Exception
) -> None:
    for name in ("ill", "well"):
        add(gpus, name, 1)
    of, function = PLACES[place]
    plain = getattr(of, function)

    def fails(*arguments: Any, **more: Any) -> Any:
        if any(mentions(argument, "ill") for argument in arguments):
            raise raised
        return plain(*arguments, **more)

    monkeypatch.setattr(of, function, fails)
    found = gpus.run(gpus.job("ill"), gpus.job("well"))
    assert codes(found) == ["internal_error", None]
    assert [result.changed for result in found] == [False, True]
    # It is taken back.
    assert {"well"} == set(gpus.fake.state.tasks) == set(gpus.fake.state.containers)
    assert found[0].failure is not None and found[0].failure.left_behind == ""


def mentions(argument: Any, name: str) -> bool:
    """Whether an argument is about the workload of that name."""
    job = getattr(argument, "job", argument)
    source = getattr(argument, "checkpoint", "")
    about = (
        getattr(job, "name", ""),
        getattr(argument, "container_id", ""),
        argument if isinstance(argument, str) else "",
    )
    return name in about or (isinstance(source, str) and name in source)


def test_metadata_that_cannot_be_used_are_one_workload_s_failure(gpus: GpuNode) -> None:
    """They come beside a checkpoint, from whoever made it."""
    add(gpus, "one", 1)
    add(gpus, "ill", 1)
    ill = {"name": "ill", "checkpoint": gpus.job("ill").checkpoint, "metadata_content": "{"}
    jobs = [gpus.job("one"), Job.from_options(ill, gpus.job("one").settings)]
    assert codes(gpus.run(*jobs)) == [None, "metadata_not_json"]


def test_too_little_vram_for_all_of_them_is_refused_before_anything_is_touched(gpus: GpuNode) -> None:
    add(gpus, "first", 50)
    add(gpus, "second", 50)
    jobs = [gpus.job("first"), gpus.job("second")]
    verdict, _predicted = restore_batch.check_all(gpus.client.another, jobs)
    assert {name: [error.code for error in errors] for name, errors in verdict.refused.items()} == {
        "second": ["vram_short"]
    }
    assert verdict.refused["second"][0].outcome == RETRYABLE, "a preflight may be run again as it is"
    first, second = gpus.run(*jobs)
    assert first.failure is None
    assert second.failure is not None
    assert (second.failure.code, second.failure.outcome, second.step) == ("vram_short", TERMINAL, "preflight")
    assert "30.0 GiB" in second.failure.msg
    assert "second" not in gpus.started and list(gpus.fake.state.containers) == ["first"]
    assert [pid for _what, pid in gpus.world.order()] == gpus.started["first"][0] * 2


def test_too_little_host_memory_for_all_of_them(gpus: GpuNode) -> None:
    for name in ("first", "second", "third"):
        gpus.add(name, [Cuda(None)])
    size = restore_batch.restore_demand.assess(gpus.client, gpus.job("first")).memory
    gpus.write_available(2 * size + 4096)
    found = gpus.run(*[gpus.job(name) for name in ("first", "second", "third")])
    assert codes(found) == [None, None, "host_memory_short"]
    assert "third" not in gpus.started


def test_what_runs_already_takes_nothing_more(gpus: GpuNode) -> None:
    add(gpus, "first", 50)
    assert gpus.one(gpus.job("first")).failure is None
    gpus.write_available(4096)
    assert gpus.one(gpus.job("first")).failure is None


def test_workloads_are_restored_side_by_side(gpus: GpuNode) -> None:
    names = ("one", "two", "three")
    for name in names:
        add(gpus, name, 1, hang_restore=1)
    at_once: list[int] = []

    def let_go_when_all_are_at_it() -> None:
        # Each call of the driver waits here for those of the others.
        for name in names:
            wait_until(lambda name=name: bool(gpus.started.get(name)))  # type: ignore[misc]
            gpus.world.wait_for("restore", gpus.started[name][0][0], LONG)
        at_once.extend(gpus.started[name][0][0] for name in names)
        for pid in at_once:
            gpus.world.unset(f"pids/{pid}/hang_restore")

    watch = threading.Thread(target=let_go_when_all_are_at_it)
    watch.start()
    jobs = [gpus.job(name, {"access": gpus.access(2 * LONG)}) for name in names]
    found = restore_batch.restore_all(gpus.client.another, jobs, 0, False)
    watch.join()
    assert codes(found) == [None] * 3
    assert len(at_once) == 3


def test_one_at_a_time(gpus: GpuNode) -> None:
    for name in ("one", "two"):
        add(gpus, name, 1, delay_restore=100)
    gpus.run(gpus.job("one"), gpus.job("two"), parallel=1)
    first, second = gpus.started["one"][0][0], gpus.started["two"][0][0]
    assert [pid for _what, pid in gpus.world.order()] == [first, first, second, second]


@pytest.mark.parametrize("parallel", [-1, 0, 1, 7])
def test_any_number_will_do_for_any_number_of_workloads(gpus: GpuNode, parallel: int) -> None:
    assert gpus.run(parallel=parallel) == []
    gpus.add("plain", [Cuda(None)])
    gpus.add("other", [Cuda(None)])
    found = gpus.run(gpus.job("plain"), gpus.job("other"), parallel=parallel)
    assert [result.failure for result in found] == [None, None]


def test_a_channel_that_cannot_be_had_costs_one_workload_only(gpus: GpuNode) -> None:
    gpus.add("one", [Cuda(None)])
    gpus.add("two", [Cuda(None)])
    opened: list[int] = []

    def another() -> Any:
        opened.append(1)
        if len(opened) == 2:
            raise RestoreError("daemon_unavailable", "Nobody listens.", outcome=RETRYABLE)
        return gpus.client.another()

    found = restore_batch.restore_all(another, [gpus.job("one"), gpus.job("two")], 1, False)
    assert codes(found) == ["daemon_unavailable", None]


# --- admission by memory


class Admission:
    """Workloads that hold the memory that they were promised until they are told to end."""

    def __init__(self, free: int) -> None:
        self.free: int | None = free
        self.memory = restore_batch._MemoryAdmission(lambda: self.free)
        self.memory._changed = Watched(self._note)
        self.inside: list[str] = []
        self._events: queue.Queue[tuple[str, str]] = queue.Queue()
        self._ends: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def begin(self, name: str, size: int) -> str:
        """A workload comes; ``begins`` or ``waits``."""
        self._ends[name] = threading.Event()

        def hold() -> None:
            with self.memory.admitted(size):
                self.inside.append(name)
                self._note("begins")
                self._ends[name].wait(LONG)

        self._threads.append(threading.Thread(target=hold, name=name))
        self._threads[-1].start()
        return self.next()[1]

    def end(self, name: str) -> None:
        """A workload is done; each that waits then begins or waits again, see :meth:`next`."""
        self._ends[name].set()

    def next(self) -> tuple[str, str]:
        """What somebody does next, and who."""
        return self._events.get(timeout=LONG)

    def _note(self, what: str) -> None:
        self._events.put((threading.current_thread().name, what))

    def finish(self) -> None:
        for end in self._ends.values():
            end.set()
        for thread in self._threads:
            thread.join(LONG)
            assert not thread.is_alive()


class Watched(threading.Condition):
    """Tells each time when somebody begins to wait for it."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def wait(self, timeout: float | None = None) -> bool:
        self._note("waits")
        return super().wait(timeout)


@pytest.fixture
def admission() -> Any:
    found = Admission(100)
    yield found
    found.finish()


def test_one_waits_until_there_is_room_beside_the_others(admission: Admission) -> None:
    assert admission.begin("a", 60) == "begins"
    assert admission.begin("b", 60) == "waits"
    assert admission.begin("c", 40) == "begins"
    assert admission.inside == ["a", "c"]
    admission.end("c")
    assert admission.next() == ("b", "waits"), "40 is not enough"
    admission.end("a")
    assert admission.next() == ("b", "begins")


def test_one_that_is_alone_never_waits(admission: Admission) -> None:
    assert admission.begin("huge", 1000) == "begins"


def test_a_node_that_does_not_tell_its_memory_holds_nobody_back(admission: Admission) -> None:
    admission.free = None
    assert admission.begin("a", 60) == "begins"
    assert admission.begin("b", 60) == "begins"


def test_one_that_fails_gives_its_room_back() -> None:
    memory = restore_batch._MemoryAdmission(lambda: 100)
    with pytest.raises(RuntimeError), memory.admitted(90):
        raise RuntimeError
    with memory.admitted(90), memory.admitted(10):
        assert memory._admitted == [90, 10]
    assert memory._admitted == []


# --- the checkpoint is read once


def reads(gpus: GpuNode, name: str) -> list[str]:
    """What was read of a checkpoint: its record, and which of its documents."""
    image = f"example.test/{name}-checkpoint:1"
    record = gpus.fake.state.images[image].target.digest
    index = json.loads(gpus.fake.state.blobs[record].data)
    documents = {record: "index", **{part["digest"]: part["mediaType"] for part in index["manifests"]}}
    found = []
    for call in gpus.fake.seen:
        if call.name == "Images/Get" and call.request.name == image:
            found.append("record")
        elif call.name == "Content/Read" and call.request.digest in documents:
            found.append(documents[call.request.digest])
    return found


@pytest.mark.parametrize("check", [True, False])
def test_a_checkpoint_is_read_once_for_a_restore(gpus: GpuNode, check: bool) -> None:
    add(gpus, "one", 1)
    gpus.fake.seen.clear()
    assert codes(restore_batch.restore_all(gpus.client.another, [gpus.job("one")], 0, check)) == [None]
    documents = reads(gpus, "one")
    assert [documents.count(part) for part in ("record", "index", CONFIG, RUNTIME_OPTIONS)] == [1, 1, 1, 1]


def test_it_is_read_no_more_when_the_workload_is_begun_anew(gpus: GpuNode) -> None:
    gpus.add("one", [Cuda(memory={GPU: GIB}, more={"fail_restore": 999})], [Cuda(memory={GPU: GIB})], held=[{GPU: GIB}])
    gpus.fake.seen.clear()
    found = restore_batch.restore_all(gpus.client.another, [gpus.job("one", {"gpu_retries": 1})], 0, False)
    assert codes(found) == [None] and len(gpus.started["one"]) == 2
    assert [part for part in reads(gpus, "one") if part in ("record", "index")] == ["record", "index"]


def test_a_name_that_moves_meanwhile_does_not_lead_to_another_checkpoint(gpus: GpuNode) -> None:
    add(gpus, "one", 1)
    image = "example.test/one-checkpoint:1"
    first = gpus.fake.state.images[image].target.digest

    def move(_context: Any) -> None:
        add_checkpoint(gpus.fake.state, name=image, base=gpus.node.base, original=spec(process={"args": ["other"]}))

    gpus.fake.on("Containers/Get", move, times=1)
    (result,) = restore_batch.restore_all(gpus.client.another, [gpus.job("one")], 0, False)
    assert gpus.fake.state.images[image].target.digest != first
    assert result.failure is None
    assert result.receipt["checkpoint"]["digest"] == first
    assert result.container.spec_after["process"]["args"] == ["counter"]


def test_a_checkpoint_that_cannot_be_read_is_told_by_the_first_step(gpus: GpuNode) -> None:
    add(gpus, "one", 1)
    del gpus.fake.state.images["example.test/one-checkpoint:1"]
    gpus.fake.seen.clear()
    found = restore_batch.restore_all(gpus.client.another, [gpus.job("one")], 0, False)
    assert [(code, result.step) for code, result in zip(codes(found), found)] == [("checkpoint_absent", "container")]
    assert gpus.fake.count("Images/Get") == 1
    (predicted,) = restore_batch.restore_all(gpus.client.another, [gpus.job("one", {"assume_prepared": True})], 0, True)
    assert (predicted.failure, predicted.changed, predicted.task.created) == (None, True, True)


# --- huge pages, which are a setting of the whole node


@pytest.fixture
def guards(gpus: GpuNode, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """By name, what the guards are to do that are started; checkpoints are of 1 GiB."""
    started: list[str] = []
    monkeypatch.setattr(host_huge_pages.HugePages, "_begin", lambda pages: started.append(pages.report.mode))
    assess = restore_batch.restore_demand.assess
    monkeypatch.setattr(
        restore_batch.restore_demand, "assess", lambda *given: dataclasses.replace(assess(*given), memory=GIB)
    )
    return started


def restored(gpus: GpuNode, mode: str, *names: str) -> dict[str, dict[str, Any]]:
    """What became of the switch, by workload."""
    jobs = [gpus.job(name, {"huge_pages": mode}) for name in names]
    found = restore_batch.restore_all(gpus.client.another, jobs, 1, False)
    assert codes(found) == [None] * len(names)
    return {result.job.name: result.preparation["huge_pages"] for result in found}


@pytest.mark.parametrize(("mode", "expected"), [("auto", []), ("keep", []), ("always", ["always"])])
def test_without_gpu_memory_huge_pages_stay_as_they_are(
    gpus: GpuNode, guards: list[str], mode: str, expected: list[str]
) -> None:
    gpus.add("plain", [Cuda(None)])
    found = restored(gpus, mode, "plain")
    assert guards == expected
    assert found["plain"]["wish"] == ("always" if expected else "keep")


def test_gpu_memory_is_worth_a_measurement_and_what_runs_beside_it_is_not(gpus: GpuNode, guards: list[str]) -> None:
    gpus.add("plain", [Cuda(None)])
    add(gpus, "train", 1)
    found = restored(gpus, "auto", "plain", "train")
    assert guards == ["auto"]
    assert {name: pages["wish"] for name, pages in found.items()} == {"plain": "keep", "train": "auto"}


def four_cards(gpus: GpuNode, gib: int) -> tuple[list[str], dict[str, str]]:
    """A workload on each of four cards, that sees all of them; the cards, and each one's neighbour."""
    cards = [GPU, *(gpus.world.add_gpu(number) for number in (1, 2, 3))]
    for card, name in zip(cards, "abcd"):
        held = {card: gib * GIB}
        gpus.add(name, [Cuda(memory=held)], held=[held], visible=cards)
    return cards, dict(zip(cards, [*cards[1:], cards[0]]))


def test_four_cards_are_turned_in_one_call(gpus: GpuNode) -> None:
    """Each leaves room only for what comes to it."""
    cards, turn = four_cards(gpus, 70)
    found = gpus.run(*(gpus.job(name, gpu_map=turn) for name in "abcd"))
    assert codes(found) == [None] * 4
    for number, result in enumerate(found):
        assert [card["uuid"] for card in result.receipt["gpu"]["gpus"]] == [cards[(number + 1) % 4]]
    again = gpus.run(*(gpus.job(name, gpu_map=turn) for name in "abcd"))
    assert [(result.failure, result.changed) for result in again] == [(None, False)] * 4


def test_of_four_cards_that_are_turned_the_one_without_room_is_refused_alone(gpus: GpuNode) -> None:
    cards, turn = four_cards(gpus, 70)
    gpus.world.set("gpus/2/other_used", 20 * GIB)
    found = gpus.run(*(gpus.job(name, gpu_map=turn) for name in "abcd"))
    # What lay on the second card comes to the third.
    assert codes(found) == [None, "vram_short", None, None]
    assert found[1].failure is not None and "GPU 2" in found[1].failure.msg
    assert [gpus.started.get(name) is not None for name in "abcd"] == [True, False, True, True]


def test_of_four_cards_the_one_that_the_driver_fails_is_taken_back_alone(gpus: GpuNode) -> None:
    cards, _turn = four_cards(gpus, 8)
    held = {cards[2]: 8 * GIB}
    gpus.planned["c"] = [[Cuda(memory=held, more={"fail_restore": 999})]]
    found = gpus.run(*(gpus.job(name) for name in "abcd"))
    assert codes(found) == [None, None, "cuda_restore_failed", None]
    assert sorted(gpus.fake.state.containers) == ["a", "b", "d"]
    assert sorted(gpus.alive()) == sorted(gpus.started[name][0][0] for name in "abd")
