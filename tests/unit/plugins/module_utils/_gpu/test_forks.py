# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a fork of a CUDA process inherited is taken away from it, and it goes on as if nothing had been.

Real processes are traced; /dev/zero, which anybody can map, stands in for the driver's device files.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import forks
from ansible_collections.gpuops.restore.plugins.module_utils._host.processes import identify
from ansible_collections.gpuops.restore.tests.unit.helpers.forked_process import DEVICE, forked

pytestmark = pytest.mark.usefixtures("traceable")
BOX = "box"


def found(pid: int) -> list[forks.Fork]:
    return forks.find(identify([pid]))


def state(pid: int) -> str:
    """The letter that /proc/PID/stat has for it: "R", "S", "T"."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]


@pytest.fixture
def traceable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is for one kind of processor; on others the preflight says so."""
    if platform.machine() != "x86_64":
        pytest.fail("these tests are for x86-64 machines")
    monkeypatch.setattr(forks, "DEVICES", DEVICE)


@pytest.mark.parametrize("how", ["nanosleep", "spin", "select", "thread"])
def test_it_goes_on_without_what_it_inherited(how: str) -> None:
    with forked(how) as child:
        (fork,) = found(child.process.pid)
        assert sum(end - start for start, end in fork.mappings) == 3 << 16
        assert fork.descriptors
        before = child.count()
        forks.detach([fork], [os.getpid()], BOX)
        assert found(child.process.pid) == []
        after = child.count()
        assert after[0] > before[0] and after[1] == before[1]


def test_signals_that_arrive_meanwhile_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with forked("nanosleep") as child:
        (fork,) = found(child.process.pid)
        # Its descriptors stay, so that it can be done again and again.
        monkeypatch.setattr(forks, "DEVICES", "/dev/none")
        for round_ in range(1, 21):
            child.process.send_signal(10)
            forks.detach([forks.Fork(fork.process, fork.mappings)], [os.getpid()], BOX)
            while child.process.stdout is not None:
                assert child.process.stdin is not None
                child.process.stdin.write("\n")
                child.process.stdin.flush()
                line = child.line()
                while line.startswith("interrupted"):
                    line = child.line()
                if int(line.split()[1]) == round_:
                    break


def test_one_that_was_stopped_stays_stopped() -> None:
    with forked("select") as child:
        (fork,) = found(child.process.pid)
        child.process.send_signal(19)
        os.waitid(os.P_PID, child.process.pid, os.WSTOPPED)
        forks.detach([fork], [os.getpid()], BOX)
        # The kernel wakes it, and it stops again by itself: until then it counts as running.
        deadline = time.monotonic() + 30
        while state(child.process.pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert state(child.process.pid) == "T"
        child.process.send_signal(18)
        assert found(child.process.pid) == []
        assert child.count()[0] > 0


def test_what_shares_memory_with_a_cuda_process_is_left_alone() -> None:
    with forked("select") as child:
        (fork,) = found(child.process.pid)
        with pytest.raises(RestoreError) as caught:
            forks.detach([fork], [child.process.pid], BOX)
        assert (caught.value.code, caught.value.outcome) == ("cuda_fork_not_detached", "retryable")
        assert "shares its memory" in caught.value.message
        assert found(child.process.pid) == [fork]


def test_another_process_with_its_number_is_left_alone() -> None:
    with forked("select") as child:
        (fork,) = found(child.process.pid)
        other = forks.Fork(type(fork.process)(fork.process.pid, fork.process.start_time + 1), fork.mappings)
        with pytest.raises(RestoreError, match="another process has its number now"):
            forks.detach([other], [], BOX)
        assert found(child.process.pid) == [fork]
        assert child.count()[0] > 0


def test_one_that_has_ended_is_no_failure() -> None:
    with forked("select") as child:
        (fork,) = found(child.process.pid)
        child.process.kill()
        child.process.wait()
        forks.detach([fork], [], BOX)


def test_one_that_is_traced_already_is_refused_before(tmp_path: Path) -> None:
    with forked("select") as child:
        (fork,) = found(child.process.pid)
        assert forks.problems([fork], forks.DETACH, BOX) == []
        tracer = subprocess.Popen(
            [sys.executable, "-c", TRACER, str(child.process.pid)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        with tracer:
            assert tracer.stdout is not None and tracer.stdout.readline() == "traced\n"
            (problem,) = forks.problems([fork], forks.DETACH, BOX)
            assert problem.code == "cuda_fork_untouchable"
            assert f"process {tracer.pid} traces it already" in problem.message
            with pytest.raises(RestoreError, match="cannot be traced"):
                forks.detach([fork], [], BOX)
        assert child.count()[0] > 0


TRACER = """
import ctypes, sys
libc = ctypes.CDLL(None)
assert libc.ptrace(0x4206, int(sys.argv[1]), None, None) == 0
print("traced", flush=True)
sys.stdin.read()
"""


def test_a_node_that_allows_no_tracing(tmp_path: Path) -> None:
    scope = tmp_path / "sys/kernel/yama"
    scope.mkdir(parents=True)
    (scope / "ptrace_scope").write_text("3\n", encoding="ascii")
    fork = forks.Fork(identify([os.getpid()])[0], ((0, 4096),))
    (problem,) = forks.problems([fork], forks.DETACH, BOX, proc=str(tmp_path))
    assert "ptrace_scope is 3" in problem.message


def test_refused_where_nothing_is_to_be_detached() -> None:
    fork = forks.Fork(identify([os.getpid()])[0], ((0, 4096),), (7,))
    (problem,) = forks.problems([fork], forks.REFUSE, BOX)
    assert problem.code == "cuda_forks"
    assert problem.details["forks"] == [{"pid": os.getpid(), "mappings": 1, "descriptors": 1}]
    assert "detach" in problem.remedy
    assert forks.problems([], forks.REFUSE, BOX) == []
