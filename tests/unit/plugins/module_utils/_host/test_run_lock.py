# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks between runs, taken by processes of their own where it matters that one dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, ConflictError
from ansible_collections.gpuops.restore.plugins.module_utils._host import run_lock
from ansible_collections.gpuops.restore.tests.unit.helpers.clock import Clock

DIGEST = "sha256:" + "a" * 64
HOLD = """
import sys
from ansible_collections.gpuops.restore.plugins.module_utils._host import run_lock
root, shared = sys.argv[1:]
run_lock.default_root = lambda: root
subject = run_lock.Subject("image", run_lock.ALL, "sha256:" + "a" * 64) if shared else \\
    run_lock.Subject("container", "k8s.io", "app")
with run_lock.held(subject, "a test", 5.0, shared=bool(shared)):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_run(shared: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the container ``app``, or a shared one of an image, until its stdin ends."""
    arguments = [sys.executable, "-c", HOLD, run_lock.default_root(), "shared" if shared else ""]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def app(seconds: float = 0.0, clock: Clock | None = None) -> contextlib.AbstractContextManager[None]:
    subject = run_lock.Subject("container", "k8s.io", "app")
    if clock is None:
        return run_lock.held(subject, "this test", seconds)
    return run_lock.held(subject, "this test", seconds, clock=clock, sleep=clock.sleep)


def test_the_second_run_waits_a_little_and_says_who_is_at_it_since_when() -> None:
    clock = Clock()
    with another_run() as process:
        with pytest.raises(ConflictError) as caught, app(3.0, clock):
            pass
        assert (caught.value.code, caught.value.outcome) == ("busy", RETRYABLE)
        assert caught.value.details["pid"] == process.pid
        since = caught.value.details["since"]
        assert f"(a test, pid {process.pid}, since {since})" in caught.value.message
        assert "the container app" in caught.value.message
        assert 3.0 <= clock.now < 3.2
        with (
            run_lock.changing("other", "app", "this test", 0.0),
            run_lock.changing("k8s.io", "app-2", "this test", 0.0),
        ):
            pass


def test_a_lock_dies_with_its_process() -> None:
    with another_run() as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with app():
        pass
    assert not Path(run_lock.default_root()).exists(), "nothing is left"


def test_who_waits_goes_on_as_soon_as_the_other_has_ended() -> None:
    with another_run() as process:
        clock = Clock(1.0, lambda: (process.kill(), process.wait()))
        with app(100.0, clock):
            assert clock.now < 100.0


def test_one_that_was_killed_is_not_named() -> None:
    """Its line stays in the file when another one takes the lock."""
    with another_run(shared=True) as dead:
        dead.kill()
        dead.wait()
    with another_run(shared=True) as alive:
        with pytest.raises(ConflictError) as caught, run_lock.removing(DIGEST, 0.0):
            pass
        assert caught.value.details["pid"] == alive.pid


def test_many_may_need_an_image_and_only_one_removes_it() -> None:
    with run_lock.kept(DIGEST, 0.0):
        with run_lock.kept(DIGEST, 0.0), pytest.raises(ConflictError), run_lock.removing(DIGEST, 0.0):
            pass
        # The one inside has not taken the lock of the other away.
        with pytest.raises(ConflictError) as caught, run_lock.removing(DIGEST, 0.0):
            pass
        assert f"the image {DIGEST}" in caught.value.message
    with run_lock.removing(DIGEST, 0.0):
        with pytest.raises(ConflictError) as caught, run_lock.kept(DIGEST, 0.0):
            pass
        assert "removes it" in caught.value.message
    assert not Path(run_lock.default_root()).exists()


def test_never_two_at_once_though_the_file_comes_and_goes() -> None:
    inside, worst = [0], [0]

    def work() -> None:
        for _ in range(60):
            with app(60.0):
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                os.sched_yield()
                inside[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    assert worst == [1]
    assert not Path(run_lock.default_root()).exists()


def test_the_files_are_private() -> None:
    with app():
        (file,) = (path for path in Path(run_lock.default_root()).rglob("*") if path.is_file())
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700


def test_what_killed_runs_have_left_goes_with_the_next_change_of_anything() -> None:
    other = run_lock.Subject("container", "k8s.io", "other")
    with another_run(shared=True) as holder:
        with run_lock.held(other, "this test", 0.0):
            pass
        # A living run's stays.
        assert list(Path(run_lock.default_root()).rglob("sha256:*"))
        holder.kill()
        holder.wait()
    assert list(Path(run_lock.default_root()).rglob("sha256:*"))
    with run_lock.held(other, "this test", 0.0):
        pass
    assert not Path(run_lock.default_root()).exists()
