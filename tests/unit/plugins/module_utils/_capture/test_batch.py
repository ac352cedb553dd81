# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several captures in one call: side by side, within memory and disk, each with its own end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import batch, capture, room
from ansible_collections.gpuops.restore.plugins.module_utils._capture.capture import Plan
from ansible_collections.gpuops.restore.plugins.module_utils._capture.gpu import Gpus
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import CaptureParams, CaptureResult
from ansible_collections.gpuops.restore.plugins.module_utils._capture.preflight import Subject
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import space
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import files
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._host import memory as host_memory

GIB = 1 << 30
Act = Callable[[str], None]


class Captures:
    """Captures that only note who is at it; ``act`` is what one does."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sizes: dict[str, room.Bytes] = {}
        self.vram: dict[str, int] = {}
        self.act: Act = lambda _name: None
        self.at_once = 0
        self.begun: list[str] = []
        self.signals: Any = None
        self._now = 0
        self._lock = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[Client]:
        yield self.client

    def foretold(self, _client: Client, params: CaptureParams) -> Plan:
        if params.container_id not in self.sizes:
            raise NodeError("odd", "It cannot be told.", "Wait.")
        size, vram = self.sizes[params.container_id], self.vram.get(params.container_id, 0)
        nothing: Any = None
        return Plan(CaptureResult(), Subject(nothing, nothing, None, Gpus(vram=vram), size.dump, size=size))

    def captured(self, _client: Client, params: CaptureParams, _check: bool, signals: Any) -> CaptureResult:
        with self._lock:
            self.signals = signals
            self.begun.append(params.container_id)
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        try:
            self.act(params.container_id)
            signals.raise_if_any()
        finally:
            with self._lock:
                self._now -= 1
        return CaptureResult(changed=True, digest=params.container_id)

    def run(self, *names: str, parallel: int = 0, check: bool = False, **more: Any) -> list[batch.Outcome]:
        jobs = [CaptureParams(name, f"example.test/{name}:1", staging_dir="/tmp/staging", **more) for name in names]
        return batch.carry_out(self.open, batch.PRESENT, jobs, parallel, check)


@pytest.fixture
def captures(client: Client, monkeypatch: pytest.MonkeyPatch) -> Captures:
    found = Captures(client)
    monkeypatch.setattr(capture, "foretold", found.foretold)
    monkeypatch.setattr(capture, "captured", found.captured)
    monkeypatch.setattr(files, "free_bytes", lambda _path: 100 * GIB)
    monkeypatch.setattr(space, "content_store", lambda _client: space.ContentStore("/proc", 100 * GIB))
    monkeypatch.setattr(host_memory, "available", lambda: 100 * GIB)
    return found


def together(number: int) -> Act:
    """None of so many goes on before all are at it."""
    barrier = threading.Barrier(number, timeout=20)
    return lambda _name: barrier.wait() and None


def test_they_are_captured_side_by_side_and_told_in_order(captures: Captures) -> None:
    captures.sizes = {name: room.Bytes(GIB, 0, 0) for name in "abc"}
    captures.act = together(3)
    found = captures.run("c", "a", "b", store="node")
    assert [one.result.digest for one in found if one.result] == ["c", "a", "b"]


@pytest.mark.parametrize(("parallel", "check"), [(1, False), (0, True)])
def test_one_after_another_where_that_is_wanted(captures: Captures, parallel: int, check: bool) -> None:
    captures.sizes = {name: room.Bytes(GIB, 0, 0) for name in "abc"}
    captures.run("a", "b", "c", parallel=parallel, check=check)
    assert (captures.begun, captures.at_once) == (["a", "b", "c"], 1)


def test_one_that_fails_does_not_disturb_the_others(captures: Captures) -> None:
    captures.sizes = {name: room.Bytes(GIB, 0, 0) for name in "ac"}

    def act(name: str) -> None:
        if name == "b":
            raise RestoreError("criu_dump_failed", "No luck.", "Try again.")

    captures.act = act
    found = captures.run("a", "b", "c")
    assert [one.error.code if one.error else "" for one in found] == ["", "criu_dump_failed", ""]


@pytest.mark.parametrize(
    ("size", "vram", "store"), [(60, 0, "image"), (1, 60, "node")], ids=["the dumps of images", "GPU memory"]
)
def test_what_passes_through_waits_where_it_does_not_fit_together(
    captures: Captures, monkeypatch: pytest.MonkeyPatch, size: int, vram: int, store: str
) -> None:
    monkeypatch.setattr(space, "content_store", lambda _client: space.ContentStore("/proc", 1000 * GIB))
    captures.sizes = {name: room.Bytes(size * GIB, 0, 0) for name in "ab"}
    captures.vram = dict.fromkeys("ab", vram * GIB)
    found = captures.run("a", "b", store=store)
    assert (captures.at_once, [bool(one.result) for one in found]) == (1, [True, True])


def test_what_the_disk_has_no_room_for_is_refused_before_anything_stops(captures: Captures) -> None:
    captures.sizes = {"a": room.Bytes(60 * GIB, 0, 0), "b": room.Bytes(60 * GIB, 0, 0), "c": room.Bytes(30 * GIB, 0, 0)}
    found = captures.run("a", "b", "c", store="node")
    assert [one.error.code if one.error else "" for one in found] == ["", "staging_no_space", ""]
    assert sorted(captures.begun) == ["a", "c"]
    foretold = captures.run("a", "b", "c", store="node", check=True)
    assert [bool(one.error) for one in foretold] == [False, True, False]


def four_cards(captures: Captures, gib: int) -> None:
    """A workload on each of four cards."""
    captures.sizes = {name: room.Bytes(gib * GIB, 0, 0) for name in "abcd"}
    captures.vram = dict.fromkeys("abcd", gib * GIB)


def codes(found: list[batch.Outcome]) -> list[str]:
    return [one.error.code if one.error else "" for one in found]


@pytest.mark.parametrize(("gib", "last"), [(20, ""), (21, "host_memory_short")])
def test_dumps_on_a_tmpfs_stay_in_memory_beside_the_vram_that_passes_through(
    captures: Captures, monkeypatch: pytest.MonkeyPatch, gib: int, last: str
) -> None:
    """The tmpfs says that it has room. What it takes is the node's memory: four dumps, and the VRAM of one card."""
    monkeypatch.setattr(files, "free_bytes", lambda _path: 1000 * GIB)
    four_cards(captures, gib)
    inside, lock, most = 0, threading.Lock(), 0

    def act(_name: str) -> None:
        nonlocal inside, most
        with lock:
            inside += 2 * gib
            most = max(most, inside)
        threading.Event().wait(0.05)
        with lock:
            inside -= gib

    captures.act = act
    options = {"store": "node", "leave": "stopped", "volatile": True}
    assert codes(captures.run(*"abcd", check=True, **options)) == ["", "", "", last]
    assert captures.begun == list("abcd"[: 3 if last else 4])
    inside = most = 0
    found = captures.run(*"abcd", **options)
    assert codes(found) == ["", "", "", last]
    assert most <= 100
    if last:
        assert found[3].error and "105.0 GiB of host memory, of which 100.0 GiB" in found[3].error.message


def test_on_a_disk_four_cards_pass_through_memory_one_after_another(captures: Captures) -> None:
    four_cards(captures, 20)
    captures.vram = dict.fromkeys("abcd", 60 * GIB)
    found = captures.run(*"abcd", store="node", leave="stopped")
    assert (codes(found), captures.at_once) == (["", "", "", ""], 1)


def test_those_that_stay_paused_keep_their_vram_in_memory(captures: Captures) -> None:
    four_cards(captures, 20)
    captures.vram = dict.fromkeys("abcd", 30 * GIB)
    found = captures.run(*"abcd", store="node", leave="paused")
    assert codes(found) == ["", "", "", "host_memory_short"]
    assert found[3].error and "staging_dir" not in found[3].error.sentence()


def test_a_signal_ends_all_of_them(captures: Captures) -> None:
    captures.sizes = {name: room.Bytes(GIB, 0, 0) for name in "ab"}
    barrier = threading.Barrier(2, timeout=20)

    def act(name: str) -> None:
        barrier.wait()
        if name == "a":
            # To this thread while the main one waits, which it does not wake, as one does not that comes just before.
            threading.Event().wait(0.3)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        for _ in range(1000):
            if captures.signals.first:
                return
            threading.Event().wait(0.01)
        raise AssertionError("nobody has handled the signal")

    captures.act = act
    before = signal.getsignal(signal.SIGTERM)
    found = captures.run("a", "b")
    assert {one.error.code for one in found if one.error} == {"capture_interrupted"}
    assert all(one.error and f"capture of {one.params.container_id} " in one.error.message for one in found)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("twice", [("a", "b:1", "a", "c:1"), ("a", "b:1", "c", "b:1")])
def test_none_stands_twice(captures: Captures, twice: tuple[str, str, str, str]) -> None:
    jobs = [CaptureParams(twice[0], twice[1]), CaptureParams(twice[2], twice[3])]
    with pytest.raises(RestoreError) as caught:
        batch.carry_out(captures.open, batch.PRESENT, jobs, 0, False)
    assert (caught.value.code, captures.begun) == ("workload_twice", [])
