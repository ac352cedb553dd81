# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that are in CRIU's configuration for one dump, and nothing of them afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._criu import dump_config

#: A process that is gone.
STALE = "# gpuops-restore begin {} 1 after {}\nlink-remap\n# gpuops-restore end {}\n".format


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "criu" / "runc.conf"


def options(path: Path) -> list[str]:
    """As CRIU reads them."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("text", ["", "verbosity=4\n", "# a note\ntcp-established # mine"])
def test_what_was_there_stays_as_it_was(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    path.chmod(0o640)
    with dump_config.added(str(path), ["link-remap"]):
        assert options(path)[0] == "link-remap"
        assert path.read_text(encoding="utf-8").endswith(text)
        assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text(encoding="utf-8") == text
    assert [entry.name for entry in path.parent.iterdir()] == ["runc.conf"]


@pytest.mark.parametrize("directory", [False, True])
def test_what_was_not_there_is_gone(path: Path, directory: bool) -> None:
    if directory:
        path.parent.mkdir()
    with dump_config.added(str(path), ["link-remap", "ghost-limit=4096"]):
        assert options(path) == ["link-remap", "ghost-limit=4096"]
    assert path.parent.exists() is directory
    assert not path.exists()


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    (tmp_path / "real.conf").write_text("verbosity=4\n", encoding="utf-8")
    path.symlink_to(tmp_path / "real.conf")
    with dump_config.added(str(path), ["link-remap"]):
        assert path.is_symlink() and options(path) == ["link-remap", "verbosity=4"]
    assert path.is_symlink() and options(path) == ["verbosity=4"]


@pytest.mark.parametrize(("before", "exists"), [("nothing", False), ("directory", False), ("file", True)])
def test_the_next_run_takes_away_what_a_killed_one_has_left(path: Path, before: str, exists: bool) -> None:
    path.parent.mkdir()
    gone = 2**22 + 1
    path.write_text(STALE(gone, before, gone), encoding="utf-8")
    with dump_config.added(str(path), ["file-locks"]):
        assert options(path) == ["file-locks"]
    if exists:
        assert path.read_text(encoding="utf-8") == ""
    path.parent.mkdir(exist_ok=True)
    path.write_text(STALE(gone, before, gone), encoding="utf-8")
    dump_config.remove_stale(str(path))
    assert path.exists() is exists


def test_what_a_living_one_has_is_left_alone(path: Path) -> None:
    """Its process is not this one: of two dumps at a time each takes away its own."""
    path.parent.mkdir()
    pid = os.getppid()
    start = dump_config.processes.start_time(pid)
    other = f"# gpuops-restore begin {pid} {start} after nothing\nlink-remap\n# gpuops-restore end {pid}\n"
    path.write_text(other, encoding="utf-8")
    with dump_config.added(str(path), ["file-locks"]):
        assert options(path) == ["file-locks", "link-remap"]
        dump_config.remove_stale(str(path))
    assert path.read_text(encoding="utf-8") == other


@pytest.mark.parametrize(
    ("text", "found"),
    [("link-remap\n", True), ("  link-remap # yes", True), ("# link-remap\n", False), (STALE(1, "file", 1), False)],
)
def test_an_option_that_is_there_already(path: Path, text: str, found: bool) -> None:
    assert not dump_config.has(str(path), "link-remap")
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert dump_config.has(str(path), "link-remap") is found


def test_a_file_that_cannot_be_written(path: Path) -> None:
    path.parent.write_text("no directory", encoding="utf-8")
    with pytest.raises(NodeError) as caught, dump_config.added(str(path), ["link-remap"]):
        pass
    assert caught.value.code == "criu_config_unwritable"
    assert "link-remap" in caught.value.remedy


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({}, "/etc/criu/runc.conf"),
        ({"annotations": {"org.criu.config": "/x/criu.conf"}}, "/x/criu.conf"),
        ({"annotations": {"org.criu.config": ""}}, ""),
    ],
)
def test_the_file_that_runc_names(spec: dict[str, Any], found: str) -> None:
    assert dump_config.config_of(spec) == found
