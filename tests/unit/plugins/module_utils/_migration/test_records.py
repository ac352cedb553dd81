# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._migration import records

GOOD = {
    "id": "0a1b2c3d4e5f",
    "source": "gpu-a",
    "target": "gpu-b",
    "source_name": "job",
    "name": "moved",
    "checkpoint": "example.test/job:moved",
    "digest": "sha256:" + "a" * 64,
    "state": "captured",
    "directory": "/var/tmp",
    "reference": "",
    "controller": "",
}


def test_a_record_is_its_document() -> None:
    record = records.parse(GOOD)
    assert record.to_json() == GOOD
    assert record.place == "/var/tmp/gpuops-migrate-0a1b2c3d4e5f"
    assert records.parse({**GOOD, "directory": ""}).place == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../../etc"},
        {"id": "a"},
        {"name": "../moved"},
        {"name": ""},
        {"source_name": "a/b"},
        {"state": "lost"},
        {"directory": "tmp"},
        {"digest": "sha256:1"},
        {"digest": ""},
        {"digest": "", "state": "moved"},
        {"digest": None},
        {"checkpoint": ["x"]},
        {"more": "x"},
    ],
)
def test_what_would_be_followed_into_harm_is_no_record(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="."):
        records.parse({**GOOD, **changes})


@pytest.mark.parametrize("key", ["id", "source", "target", "source_name", "name", "checkpoint"])
def test_a_record_without_a_key_is_none(key: str) -> None:
    with pytest.raises(ValueError, match="missing"):
        records.parse({name: value for name, value in GOOD.items() if name != key})


def test_the_oldest_comes_first_and_what_is_none_is_named(tmp_path: Path) -> None:
    assert records.read_all(str(tmp_path), "k8s.io") == ([], [])
    place = Path(records.directory(str(tmp_path), "k8s.io"))
    place.mkdir(parents=True)
    for age, number in enumerate(("new00000", "old00000")):
        path = place / f"job.{number}.json"
        path.write_text(json.dumps({**GOOD, "id": number}))
        os.utime(path, (1000 - age, 1000 - age))
    (place / "half.json").write_text('{"id": ')
    (place / "renamed.json").write_text(json.dumps(GOOD))
    (place / "link.json").symlink_to(place / "job.new00000.json")
    (place / "directory.json").mkdir()
    (place / "other").write_text("")
    found, unreadable = records.read_all(str(tmp_path), "k8s.io")
    assert [record.id for record in found] == ["old00000", "new00000"]
    assert sorted(os.path.basename(path) for path in unreadable) == [
        "directory.json",
        "half.json",
        "link.json",
        "renamed.json",
    ]
    assert records.read_all(str(tmp_path), "default") == ([], [])
