# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role checkpoint_node asks."""

from __future__ import annotations

from . import capture, lines
from .steps import Steps

STEPS: Steps = {
    "requests": capture.requests,
    "problems": lambda known: capture.problems(known["workloads"], known["foretold"]),
    "taken": lambda known: capture.taken(known["taking"], known["names"]),
    "failures": lambda known: capture.failures(known["answers"]),
    "receipts": lambda known: capture.receipts(known["captured"], known["exports"], known["pushes"]),
    "failure_lines": lambda known: lines.of_failures(known["failures"]),
}
