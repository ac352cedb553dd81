# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import rooted_path


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
