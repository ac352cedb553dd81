# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._transfer import servers
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Blob

LEFTOVERS = "containerd_leftovers"
KEY = "ab" * 32


def test_found_once_and_removed_once(call: Call, fake: FakeContainerd, tmp_path: Path) -> None:
    state = tmp_path / "state"
    partial = state / f".{KEY}.partial-1"
    partial.mkdir(parents=True)
    state.chmod(0o700)
    (partial / "pages-1.img").write_bytes(b"m" * 5000)
    fake.state.blobs[f"sha256:{KEY}"] = Blob(b"index")
    options = {"staging_dir": str(state)}
    assert call(LEFTOVERS, keep_partials=True, **options)["changed"] is False
    predicted = call(LEFTOVERS, True, **options)
    assert partial.exists()
    done = call(LEFTOVERS, **options)
    assert predicted == done
    assert [(left["kind"], left["name"]) for left in done["removed"]] == [("partial_staging", str(partial))]
    assert len(done["actions"]) == 1 and str(partial) in done["actions"][0]
    assert not os.path.exists(state)
    assert call(LEFTOVERS, **options)["changed"] is False


def test_a_server_that_was_killed(
    call: Call, fake: FakeContainerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "root", lambda: str(tmp_path))
    record = tmp_path / "move.json"
    record.write_text('{"process": "boot/1/1", "port": 1, "certificate": "", "wish": ""}')
    options = {"staging_dir": str(tmp_path / "state"), "idle_servers": True}
    predicted = call(LEFTOVERS, True, **options)
    assert record.exists()
    assert predicted == call(LEFTOVERS, **options) and not record.exists()
    assert predicted["removed"] == [{"kind": "checkpoint_server", "name": str(record), "bytes": None}]
    assert call(LEFTOVERS, **options)["changed"] is False


def test_a_directory_of_others_is_refused(call: Call, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert call(LEFTOVERS, staging_dir=str(tmp_path))["failure"]["code"] == "staging_dir_unsafe"
