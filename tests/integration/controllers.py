# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of ansible-playbook that are killed, and the copies of a workload that they leave."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def kill_with_descendants(process: subprocess.Popen[str]) -> None:
    """The whole controller, as a machine that is switched off: its workers, and ssh, have sessions of their own."""
    parents: dict[int, int] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    doomed = [process.pid]
    for pid in doomed:
        doomed += [child for child, parent in parents.items() if parent == pid]
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


@dataclass(frozen=True)
class Moment:
    """So many seconds after a task begins, for the time-th time; 0: before it does anything."""

    task: str
    seconds: float = 0.0
    time: int = 1

    def __str__(self) -> str:
        return f"{self.task}, time {self.time}, {self.seconds} s"


def begin(
    root: pathlib.Path, place: pathlib.Path, arguments: Sequence[str], moment: Moment | None
) -> subprocess.Popen[str]:
    """A run in ``place``, which has the inventory, and gets the file ``output``, and ``there`` at the moment.

    One that is to be killed before its task waits for that.
    """
    environment = {**os.environ, "ANSIBLE_CONFIG": str(root / "examples/ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    environment["TMPDIR"] = str(place)
    if moment is not None:
        environment["ANSIBLE_CALLBACK_PLUGINS"] = str(root / "tests/tools/callback_plugins")
        environment["ANSIBLE_CALLBACKS_ENABLED"] = "gpuops_at_task"
        environment["GPUOPS_AT_TASK"], environment["GPUOPS_AT_TASK_TIME"] = moment.task, str(moment.time)
        wait = "" if moment.seconds else "; sleep 60"
        environment["GPUOPS_AT_TASK_RUN"] = f"sh -c 'touch {place}/there{wait}'"
    with (place / "output").open("w", encoding="utf-8") as output:
        return subprocess.Popen(
            ["ansible-playbook", "-i", "inventory.yml", *arguments],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def kill_at(
    place: pathlib.Path, moment: Moment, start: Callable[[pathlib.Path, Moment | None], subprocess.Popen[str]]
) -> None:
    """A run that is killed at the moment."""
    there = place / "there"
    there.unlink(missing_ok=True)
    process = start(place, moment)
    while not there.exists():
        assert process.poll() is None, f"it came to its end before {moment}: {(place / 'output').read_text()}"
        time.sleep(0.01)
    time.sleep(moment.seconds)
    kill_with_descendants(process)


class Copies:
    """Watches the output of both copies; ``both``: a time in which both have written something."""

    def __init__(self, *paths: pathlib.Path) -> None:
        self.both = ""
        self._paths = paths
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Copies:
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._end.set()
        self._thread.join()

    def _sizes(self) -> list[int]:
        return [path.stat().st_size if path.exists() else 0 for path in self._paths]

    def _watch(self) -> None:
        before = self._sizes()
        while not self._end.wait(0.3):
            now = self._sizes()
            if all(new > old for new, old in zip(now, before)):
                self.both = self.both or f"from {before} to {now} bytes"
            before = now
