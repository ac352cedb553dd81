# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.gpuops.restore.plugins.module_utils._transfer.serve_worker import Deadline


def test_it_ends_when_nobody_uses_it() -> None:
    clock = [0.0]
    deadline = Deadline(10.0, 100.0, lambda: clock[0])
    clock[0] = 9.0
    assert not deadline.passed()
    deadline.used()
    clock[0] = 18.0
    assert not deadline.passed()
    clock[0] = 19.0
    assert deadline.passed()


def test_it_ends_after_its_time_whoever_uses_it() -> None:
    clock = [0.0]
    deadline = Deadline(10.0, 25.0, lambda: clock[0])
    for now in (8.0, 16.0, 24.0):
        clock[0] = now
        deadline.used()
        assert not deadline.passed()
    clock[0] = 25.0
    assert deadline.passed()
