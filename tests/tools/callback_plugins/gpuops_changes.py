# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes what became of each task on each host to a file, for compare_check_mode.py. Only for tests."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: gpuops_changes
type: notification
short_description: Record what became of each task
description:
  - Appends one JSON object a result to the file that the environment variable E(GPUOPS_CHANGES) names.
"""


class CallbackModule(CallbackBase):
    """One line a result: host, task, its place in the files, item, and how it ended."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "gpuops_changes"
    CALLBACK_NEEDS_ENABLED = True

    def _write(self, result: Any, ended: str, item: bool = False) -> None:
        # 2.21 gives result.task and result.host, 2.19 may give the underscored ones only.
        task = getattr(result, "task", None) or result._task
        host = getattr(result, "host", None) or result._host
        found = getattr(result, "result", None)
        if found is None:
            found = result._result
        label = found.get(found.get("ansible_loop_var", "item"), "") if item else ""
        entry = {
            "host": host.get_name(),
            "task": task.get_name(),
            "place": os.path.basename(str(task.get_path())),
            "item": label if isinstance(label, str) else "",
            "is_item": item,
            "ended": ended,
            "changed": bool(found.get("changed", False)),
        }
        with open(os.environ["GPUOPS_CHANGES"], "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write(result, "skipped")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write(result, "unreachable")

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._write(result, "ok", item=True)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._write(result, "failed", item=True)
