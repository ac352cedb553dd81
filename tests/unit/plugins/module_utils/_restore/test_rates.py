# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node is known for: kept in a file, else out of receipts; and short measurements."""

from __future__ import annotations

import json
import os
import pathlib

from ansible_collections.gpuops.restore.plugins.module_utils._restore import rates
from ansible_collections.gpuops.restore.plugins.module_utils._restore.prediction import Sample
from ansible_collections.gpuops.restore.tests.unit.helpers.receipts import GIB, receipt


def test_the_last_ones_are_kept(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "run" / "rates.json"
    for number in range(1, 21):
        rates.note(str(file), [Sample(number, 1.0)])
    found = rates.load(str(file), str(tmp_path))
    assert [one.size for one in found.samples] == list(range(9, 21))
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(file.parent) == ["rates.json"]


def test_nothing_is_kept_where_nothing_was_restored_or_nobody_asked(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "run" / "rates.json"
    rates.note(str(file), [])
    rates.note("", [Sample(1, 1.0)])
    # Nor does it matter when it cannot be.
    (tmp_path / "file").write_text("")
    rates.note(str(tmp_path / "file" / "rates.json"), [Sample(1, 1.0)])
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_is_damaged_is_as_none(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "rates.json"
    for text in ("", "{", "{}", "[7, {}]", "\udcff"):
        file.write_text(text, errors="surrogateescape")
        assert not rates.load(str(file), str(tmp_path)).samples
    rates.note(str(file), [Sample(7, 1.0)])
    assert [one.size for one in rates.load(str(file), "").samples] == [7]


def test_after_a_reboot_the_receipts_tell(tmp_path: pathlib.Path) -> None:
    receipts = tmp_path / "receipts"
    receipts.mkdir()
    (receipts / "train.json").write_text(json.dumps(receipt()))
    (receipts / "odd.json").write_text("[")
    (receipts / "old.json").write_text(json.dumps([1]))
    (one,) = rates.load(str(tmp_path / "rates.json"), str(tmp_path)).samples
    assert one.size == GIB


def test_measurements(tmp_path: pathlib.Path) -> None:
    assert rates.copy_rate() > 1 << 20
    path = tmp_path / "file"
    path.write_bytes(os.urandom(4 << 20))
    assert rates.disk_rate(str(path), 1 << 20, 9 << 20) > 0
    assert rates.disk_rate(str(tmp_path / "none"), 0, 1) == 0.0
