# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a dump says of deleted files, mounts and credentials. What it says of memory is tested with the split."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import api
from ansible_collections.gpuops.restore.plugins.module_utils._criu import image_files
from ansible_collections.gpuops.restore.tests.unit.helpers import criu_samples

LINKED, GHOST, PROCFS = 0, 1, 2


def test_those_that_another_name_leads_to(tmp_path: Path) -> None:
    names = {3: "/dev/null", 5: "/var/one", 6: "var/link_remap.6", 7: "/var/ghost"}
    criu_samples.dump_files(tmp_path, names, [(5, 6, LINKED), (7, 8, GHOST), (9, 41, PROCFS)])
    assert image_files.link_remaps(str(tmp_path)) == [("/var/one", "/var/link_remap.6")]


def test_most_dumps_have_none(tmp_path: Path) -> None:
    assert image_files.link_remaps(str(tmp_path)) == []
    criu_samples.dump_files(tmp_path, {}, [(7, 8, GHOST)])
    assert image_files.link_remaps(str(tmp_path)) == []


def test_a_dump_that_is_not_understood(tmp_path: Path) -> None:
    criu_samples.dump_files(tmp_path, {5: "/var/one"}, [(5, 6, LINKED)])
    with pytest.raises(image_files.UnreadableError, match="no file 6"):
        image_files.link_remaps(str(tmp_path))
    (tmp_path / "remap-fpath.img").write_bytes(b"something else")
    with pytest.raises(image_files.UnreadableError, match=r"remap-fpath\.img"):
        image_files.link_remaps(str(tmp_path))


def test_what_the_processes_may_do(tmp_path: Path) -> None:
    assert image_files.credentials(str(tmp_path)) == image_files.Credentials()
    criu_samples.core(tmp_path, "core-1.img", 1 << 0 | 1 << 21)
    criu_samples.core(tmp_path, "core-2.img", 1 << 40)
    criu_samples.core(tmp_path, "core-3.img", None)
    assert image_files.credentials(str(tmp_path)) == image_files.Credentials(frozenset({0, 21, 40}))
    criu_samples.core(tmp_path, "core-4.img", 0, seccomp_mode=0)
    assert image_files.credentials(str(tmp_path)).unfiltered
    old = api().message("criu.CredsEntry")(cap_eff=[1 << 12])
    (tmp_path / "creds-1.img").write_bytes(criu_samples.image(criu_samples.CREDS, old))
    assert image_files.credentials(str(tmp_path)).capabilities == {0, 12, 21, 40}


@pytest.mark.parametrize("data", [b"", b"\0" * 8, criu_samples.image(criu_samples.CORE) + b"\5\0\0\0"])
def test_cores_that_are_not_understood(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "core-1.img").write_bytes(data)
    with pytest.raises(image_files.UnreadableError):
        image_files.credentials(str(tmp_path))


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    """A file system takes them, so a dump has them, or a stranger's does."""
    criu_samples.dump_files(tmp_path, {1: "/var/@", 2: "/var/link_remap.2"}, [(1, 2, LINKED)])
    criu_samples.dump_mounts(tmp_path, "/data/@")
    for path in (tmp_path / "files.img", tmp_path / "mountpoints-12.img"):
        path.write_bytes(path.read_bytes().replace(b"@", b"\xff"))
    with contextlib.suppress(image_files.UnreadableError):  # some releases of protobuf do not take them
        assert image_files.link_remaps(str(tmp_path)) == [("/var/\udcff", "/var/link_remap.2")]
    with contextlib.suppress(image_files.UnreadableError):
        assert image_files.external_mounts(str(tmp_path)) == ["/data/\udcff"]


def test_mounts_that_need_a_source(tmp_path: Path) -> None:
    assert image_files.external_mounts(str(tmp_path)) == []
    criu_samples.dump_mounts(tmp_path, "/data", "/etc/hosts", "/data")
    assert image_files.external_mounts(str(tmp_path)) == ["/data", "/etc/hosts"]
