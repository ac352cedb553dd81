# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.tests.unit.helpers import ansible_modules, capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import Box

process = pytest.fixture(capture_samples.process)


def test_it_answers_as_it_documents(
    call: Call, fake: Any, client: Client, node: Any, tmp_path: Any, process: int
) -> None:
    box = Box(fake, client, node, tmp_path, process)
    box.capture()
    for check in (True, False):
        answer = call("containerd_workload_info", check, staging_dir=box.root)
        assert answer["changed"] is False
        assert ansible_modules.undocumented("containerd_workload_info", answer) == []
        sample = ansible_modules.document("containerd_workload_info", "RETURN")
        for key in ("workloads", "checkpoints"):
            assert sorted(answer[key][0]) == sorted(sample[key]["sample"][0])
