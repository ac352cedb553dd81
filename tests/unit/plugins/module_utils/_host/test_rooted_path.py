# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import rooted_path
from ansible_collections.gpuops.restore.tests.unit.helpers import container_root


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/var/run/data", "/run/data"),
        ("/lib/firmware/a.bin", "/usr/lib/firmware/a.bin"),
        ("/chain/x", "/run/x"),
        ("/up/x", "/x"),
        ("/var/run/../lib", "/usr/lib"),
        ("//var///run/", "/run"),
        ("/none/../../../etc", "/etc"),
        ("/", "/"),
    ],
)
def test_links_are_followed_and_never_lead_out(tmp_path: Path, path: str, place: str) -> None:
    for name in ("run", "usr/lib", "var"):
        (tmp_path / name).mkdir(parents=True)
    links = {"var/run": "/run", "lib": "usr/lib", "chain": "var/./run", "up": "../../../../.."}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert rooted_path.resolve(str(tmp_path), path) == place
    assert rooted_path.resolve(f"{tmp_path}/", path) == place


def test_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert rooted_path.resolve(str(tmp_path), "/a/x") in ("/a/x", "/b/x")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return container_root.make(tmp_path)


@pytest.mark.parametrize("openat2", [True, False])
def test_no_path_leads_out(root: Path, openat2: bool) -> None:
    def content(path: str) -> str:
        found = rooted_path.open_path(str(root), path, openat2)
        try:
            with open(f"/proc/self/fd/{found}", encoding="utf-8") as stream:
                return stream.read()
        finally:
            os.close(found)

    assert content("/var/count") == "1"
    for path in ("/out", "/up", "/directory/secret", "/../secret"):
        with pytest.raises(OSError):
            content(path)


def test_only_regular_files_are_read(root: Path) -> None:
    for path in ("/fifo", "/var"):
        with pytest.raises(OSError, match="not a regular file"):
            rooted_path.open_regular(str(root), path)
