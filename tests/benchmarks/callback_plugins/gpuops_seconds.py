# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes how long each task took on each host, as the controller sees it. Only for benchmarks."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: gpuops_seconds
type: notification
short_description: Record how long each task took
description:
  - Appends one JSON object a result to the file that the environment variable E(GPUOPS_SECONDS) names.
"""


class CallbackModule(CallbackBase):
    """One line a result: host, task, how it ended, and the seconds since it was given to a worker."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "gpuops_seconds"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._begun: dict[tuple[str, str], float] = {}

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._begun[host.get_name(), str(task._uuid)] = time.monotonic()

    def _write(self, result: Any, ended: str) -> None:
        # 2.21 gives result.task and result.host, 2.19 may give the underscored ones only.
        task = getattr(result, "task", None) or result._task
        host = (getattr(result, "host", None) or result._host).get_name()
        begun = self._begun.get((host, str(task._uuid)))
        if begun is None:
            return
        seconds = round(time.monotonic() - begun, 4)
        entry = {"host": host, "task": task.get_name(), "ended": ended, "seconds": seconds, "at": time.time()}
        with open(os.environ["GPUOPS_SECONDS"], "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write(result, "skipped")
