# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signals that come while a capture is under way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import signals as capture_signals
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import Box
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_has_the_task_go_on_at_once(box: Box, number: signal.Signals) -> None:
    # Under nohup a hang-up is ignored from the beginning.
    inherited = signal.signal(number, signal.default_int_handler)
    try:
        box.fake.on("Tasks/Checkpoint", lambda _context: os.kill(os.getpid(), number))
        error = box.fails()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, inherited)
    assert (error.code, error.outcome) == ("capture_interrupted", RETRYABLE)
    assert number.name in error.message
    assert "Diff/Diff" not in box.fake.names(), "what comes after the dump is left out"
    box.untouched()


def test_a_signal_that_is_ignored_stays_ignored(box: Box) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        box.fake.on("Tasks/Checkpoint", lambda _context: os.kill(os.getpid(), signal.SIGHUP))
        assert box.capture().changed
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_first_of_several_signals_is_told() -> None:
    with capture_signals.deferred("box") as found:
        found.raise_if_any()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        with pytest.raises(RestoreError) as caught:
            found.raise_if_any()
    assert (caught.value.code, caught.value.outcome) == ("capture_interrupted", RETRYABLE)
    assert caught.value.message == "The capture of box was broken off by SIGTERM."


def test_in_another_thread_no_handler_is_replaced() -> None:
    """Python allows that in the main thread alone."""
    seen = []

    def work() -> None:
        with capture_signals.deferred("box") as found:
            seen.append(signal.getsignal(signal.SIGTERM))
            found.raise_if_any()

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
