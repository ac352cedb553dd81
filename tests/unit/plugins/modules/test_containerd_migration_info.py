# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._migration import answers, records
from ansible_collections.gpuops.restore.tests.unit.helpers import ansible_modules
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd


def test_what_a_node_knows(call: Call, fake: FakeContainerd, tmp_path: Path) -> None:
    options: dict[str, Any] = {"names": ["moved"], "staging_dir": str(tmp_path), "directories": [str(tmp_path)]}
    assert call("containerd_migration_info", **options)["records"] == []
    record = records.Record("0a1b2c3d4e5f", "gpu-a", "gpu-b", "job", "moved", "example.test/job:1")
    place = tmp_path / "migrations" / "tests"
    place.mkdir(parents=True)
    (place / record.file_name).write_text(json.dumps(record.to_json()))
    (tmp_path / "gpuops-migrate-0a1b2c3d4e5f").mkdir()
    for check in (True, False):
        found = call("containerd_migration_info", check, **options)
        assert (found["changed"], found["records"], found["unreadable"]) == (False, [record.to_json()], [])
        # The source's containers are looked at unasked.
        assert sorted(found["containers"]) == ["job", "moved"]
        assert [place["path"] for place in found["places"]] == [str(tmp_path / "gpuops-migrate-0a1b2c3d4e5f")]


@pytest.mark.parametrize(
    "module",
    [
        "containerd_checkpoint",
        "containerd_checkpoint_stage",
        "containerd_container",
        "containerd_image",
        "containerd_migration_info",
        "containerd_task",
    ],
)
def test_a_good_answer_of_each_module_is_told_from_one_that_did_not_run(module: str) -> None:
    returned = ansible_modules.document(module, "RETURN")
    # A migration asks for one container, and for one checkpoint, at a time.
    always = ("success", "with O(container_id)", "success and O(workloads) is not given")
    assert [key for key in answers._GOOD if returned.get(key, {}).get("returned") in always]
