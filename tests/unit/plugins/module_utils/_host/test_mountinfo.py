# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a path lies on, by the kernel's list of mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import mountinfo


@pytest.mark.parametrize(
    ("fstype", "expected"), [("tmpfs", True), ("ramfs", True), ("rootfs", True), ("ext4", False), ("xfs", False)]
)
def test_whether_a_reboot_loses_a_directory(tmp_path: Path, fstype: str, expected: bool) -> None:
    device = os.stat(tmp_path).st_dev
    here = f"{os.major(device)}:{os.minor(device)}"
    mounts = mountinfo.parse(f"1 0 0:0 / / rw - tmpfs none rw\n2 1 {here} / /x rw - {fstype} none rw\n")
    (tmp_path / "link").symlink_to(tmp_path / "later")
    for path in (tmp_path, tmp_path / "later" / "still", tmp_path / "link"):
        assert mountinfo.is_in_memory(str(path), mounts) is expected


@pytest.mark.parametrize("below", ["", "not/there/yet"])
def test_the_file_system_of_a_path_is_that_of_its_device(tmp_path: Path, below: str) -> None:
    device = os.stat(tmp_path).st_dev
    text = (
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"21 20 {os.major(device)}:{os.minor(device)} / /elsewhere rw - tmpfs tmpfs rw\n"
    )
    assert mountinfo.file_system(str(tmp_path / below), mountinfo.parse(text)) == "tmpfs"
    assert mountinfo.file_system(str(tmp_path / below), []) == ""


def test_a_link_counts_for_where_it_leads(tmp_path: Path) -> None:
    link = tmp_path / "state"
    link.symlink_to("/proc")
    assert mountinfo.file_system(str(link), mountinfo.parse(mountinfo.read())) == "proc"
