# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a command when a playbook comes to a task: what befalls nodes in the middle of a run. Only for tests."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: gpuops_at_task
type: notification
short_description: Run a command when a playbook comes to a task
description:
  - Before the first task of the name E(GPUOPS_AT_TASK) begins, E(GPUOPS_AT_TASK_RUN) runs on the controller.
  - Where E(GPUOPS_AT_TASK_TIME) is 2, before the second one, and so on.
"""


class CallbackModule(CallbackBase):
    """Once in a run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "gpuops_at_task"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._left = int(os.environ.get("GPUOPS_AT_TASK_TIME", "1"))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if task.get_name().split(" : ")[-1] != os.environ["GPUOPS_AT_TASK"]:
            return
        self._left -= 1
        if self._left == 0:
            subprocess.run(shlex.split(os.environ["GPUOPS_AT_TASK_RUN"]), check=True)
