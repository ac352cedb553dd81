# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the programs of section ``programs`` share: arguments, a log of steps, and a pause between them.

``work/steps.txt`` has a line for each step and a last one, "done"; two runs of a program are compared by it.
``work/beat.log`` grows as long as the process lives.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from types import ModuleType
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """--steps, --work, --pause (seconds between steps, so that there is time to capture), --cpu (a rehearsal)."""
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--cpu", action="store_true")
    return parser.parse_args()


def deterministic(torch: ModuleType, cpu: bool) -> str:
    """Fix all that a run could differ by; the device to compute on."""
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(7)
    if cpu:
        # Two runs and their ranks share few processors, where threads that wait for each other take all of them.
        torch.set_num_threads(1)
    return "cpu" if cpu else "cuda"


class Log:
    """The file of steps. At its end the process stays and beats, so that it can be looked at."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._steps = open(options.work / "steps.txt", "a", encoding="utf-8")  # noqa: SIM115
        self._beat = open(options.work / "beat.log", "a", encoding="ascii")  # noqa: SIM115
        self._pause = options.pause
        self._number = 0

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: Any, *_unused: object) -> None:
        if kind is None:
            self.end()

    def end(self) -> None:
        """All steps are done. Never returns."""
        self._steps.write("done\n")
        self._steps.flush()
        while True:
            self._pulse()
            time.sleep(0.5)

    def step(self, result: str) -> None:
        """One step is done; ``result`` says what came of it, to the last bit."""
        self._number += 1
        self._steps.write(f"{self._number} {result}\n")
        self._steps.flush()
        self._pulse()
        time.sleep(self._pause)

    def _pulse(self) -> None:
        self._beat.write("beat\n")
        self._beat.flush()
