# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call

METRICS = "containerd_metrics"


def test_written_once_and_removed_once(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "gpuops_restore.prom"
    options = {"path": str(path), "staging_dir": str(tmp_path / "state")}
    predicted = call(METRICS, True, **options)
    assert not path.exists()
    done = call(METRICS, **options)
    assert predicted == done and done["changed"] is True
    assert path.read_text() == done["text"] != ""
    assert call(METRICS, **options)["changed"] is False
    gone = call(METRICS, state="absent", **options)
    assert (gone["changed"], gone["text"]) == (True, "")
    assert not path.exists()
    assert call(METRICS, state="absent", **options)["changed"] is False


def test_a_directory_that_is_not_there_is_a_failure(call: Call, tmp_path: Path) -> None:
    answer = call(METRICS, path=str(tmp_path / "absent" / "gpuops_restore.prom"))
    assert answer["failure"]["code"] == "metrics_unwritable"
